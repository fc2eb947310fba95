"""Layers that compute the same faster on CPUs; nothing of them is adopted on a GPU."""
