"""Sources of encoded images, decoding, packing, and the loader of view batches."""

from sslight.data.bad_images import BadImage, count_reasons, merge_bad_images, no_readable_image, write_bad_images
from sslight.data.build import build_image_source, build_source
from sslight.data.combine import ConcatSource, SubsetSource
from sslight.data.decode import decode
from sslight.data.detection_loader import DetectionBatch, DetectionLoader, measured_images
from sslight.data.detection_sets import open_detection_sets
from sslight.data.file_list import FileListSource
from sslight.data.fingerprint import DataFingerprint, data_fingerprint
from sslight.data.folder import FolderSource
from sslight.data.h5 import H5Source
from sslight.data.images import check_readable, image_batches, readable_images
from sslight.data.inspect import Inspection, inspect_source
from sslight.data.instances import (
    AnnotatedImage,
    DetectionSet,
    Instance,
    Segmentation,
    decode_mask,
    encode_mask,
)
from sslight.data.limits import USUAL_LIMITS, ReadLimits
from sslight.data.loader import ViewLoader, available_cores, build_view_loader, loader_workers, usual_workers
from sslight.data.pack import PackResult, pack
from sslight.data.remote import StoreUnavailable
from sslight.data.slots import WorkerFailed
from sslight.data.source import Source, labels_in
from sslight.data.subset import select_subset
from sslight.data.synthetic import SyntheticSource
from sslight.data.tar import TarSource
from sslight.data.unreadable import UnreadableImage

__all__ = [
    "USUAL_LIMITS",
    "AnnotatedImage",
    "BadImage",
    "ConcatSource",
    "DataFingerprint",
    "DetectionBatch",
    "DetectionLoader",
    "DetectionSet",
    "FileListSource",
    "FolderSource",
    "H5Source",
    "Inspection",
    "Instance",
    "PackResult",
    "ReadLimits",
    "Segmentation",
    "Source",
    "StoreUnavailable",
    "SubsetSource",
    "SyntheticSource",
    "TarSource",
    "UnreadableImage",
    "ViewLoader",
    "WorkerFailed",
    "available_cores",
    "build_image_source",
    "build_source",
    "build_view_loader",
    "check_readable",
    "count_reasons",
    "data_fingerprint",
    "decode",
    "decode_mask",
    "encode_mask",
    "image_batches",
    "inspect_source",
    "labels_in",
    "loader_workers",
    "measured_images",
    "merge_bad_images",
    "no_readable_image",
    "open_detection_sets",
    "pack",
    "readable_images",
    "select_subset",
    "usual_workers",
    "write_bad_images",
]
