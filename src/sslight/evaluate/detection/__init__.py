"""Object detection and instance segmentation: does the backbone help Faster R-CNN and Mask R-CNN?"""

from sslight.evaluate.detection.average_precision import (
    AveragePrecision,
    Prediction,
    coco_average_precision,
    voc_average_precision,
)
from sslight.evaluate.detection.detector import build_detector
from sslight.evaluate.detection.measure import DetectionResult, measure_detection
from sslight.evaluate.detection.schedule import DetectionSchedule, detection_optimizer, detection_schedule
from sslight.evaluate.detection.task import DetectionTask, prepare_detection

__all__ = [
    "AveragePrecision",
    "DetectionResult",
    "DetectionSchedule",
    "DetectionTask",
    "Prediction",
    "build_detector",
    "coco_average_precision",
    "detection_optimizer",
    "detection_schedule",
    "measure_detection",
    "prepare_detection",
    "voc_average_precision",
]
