"""Batches that worker processes fill: views for training, centre crops for features."""
