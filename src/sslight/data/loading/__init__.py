"""Batches that worker processes fill: views for training, center crops for features."""
