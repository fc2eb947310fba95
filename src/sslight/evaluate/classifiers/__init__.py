"""Classifiers on features: neighbors, logistic regression, linear layers; and how their answers are counted."""
