"""Layers that compute the same faster on CPUs; not used on a GPU."""
