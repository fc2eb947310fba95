"""Measuring a backbone by the field's protocols: kNN, linear, semi-supervised. Knows nothing of the methods."""

from sslight.evaluate.classifiers.knn import knn_classify
from sslight.evaluate.detection.measure import DetectionResult
from sslight.evaluate.results import EvaluationResult

__all__ = ["DetectionResult", "EvaluationResult", "knn_classify"]
