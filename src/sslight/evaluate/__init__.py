"""Measuring a backbone by its features: kNN and linear classification. Knows nothing of the methods."""

from sslight.evaluate.features import extract_features
from sslight.evaluate.knn import knn_classify
from sslight.evaluate.linear import fit_logistic_regression
from sslight.evaluate.online import LabelledProbe

__all__ = ["LabelledProbe", "extract_features", "fit_logistic_regression", "knn_classify"]
