"""Measuring a backbone by the field's protocols: kNN, linear, semi-supervised. Knows nothing of the methods."""

from sslight.evaluate.classifiers.knn import knn_classify, nearest_neighbors
from sslight.evaluate.classifiers.logistic import LogisticRegression, fit_logistic_regression
from sslight.evaluate.classifiers.metrics import Accuracy
from sslight.evaluate.compare import compare_detections, compare_files, compare_results, published_note
from sslight.evaluate.detection import (
    DetectionResult,
    detection_optimizer,
    measure_detection,
    prepare_detection,
)
from sslight.evaluate.features.cache import CachedFeatures, cached_features
from sslight.evaluate.features.embeddings import Embeddings, embed
from sslight.evaluate.features.extract import EvalTransform, extract_features
from sslight.evaluate.online import LabeledProbe
from sslight.evaluate.results import EvaluationResult, read_result
from sslight.evaluate.run import check_evaluation, run_evaluation

__all__ = [
    "Accuracy",
    "CachedFeatures",
    "DetectionResult",
    "Embeddings",
    "EvalTransform",
    "EvaluationResult",
    "LabeledProbe",
    "LogisticRegression",
    "cached_features",
    "check_evaluation",
    "compare_detections",
    "compare_files",
    "compare_results",
    "detection_optimizer",
    "embed",
    "extract_features",
    "fit_logistic_regression",
    "knn_classify",
    "measure_detection",
    "nearest_neighbors",
    "prepare_detection",
    "published_note",
    "read_result",
    "run_evaluation",
]
