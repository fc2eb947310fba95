"""Sources of encoded images, decoding, packing, and the loader of view batches."""

from sslight.data.decoding.decode import decode
from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits, UnreadableImage
from sslight.data.detection.instances import (
    AnnotatedImage,
    DetectionSet,
    Instance,
    Segmentation,
    decode_mask,
    encode_mask,
)
from sslight.data.detection.loader import DetectionBatch, DetectionLoader, measured_images
from sslight.data.detection.sets import open_detection_sets
from sslight.data.loading.crop_loader import CropBatch, CropLoader
from sslight.data.loading.image_loader import check_readable, image_batches, readable_images
from sslight.data.loading.shared_batches import WorkerFailed
from sslight.data.loading.view_loader import (
    ViewLoader,
    available_cores,
    build_view_loader,
    default_workers,
    loader_workers,
)
from sslight.data.packing.inspect import Inspection, inspect_source
from sslight.data.packing.pack import PackResult, pack
from sslight.data.sources.bad_images import (
    BadImage,
    count_reasons,
    merge_bad_images,
    no_readable_image,
    write_bad_images,
)
from sslight.data.sources.build import build_image_source, build_source, passed_over, source_notice
from sslight.data.sources.combine import ConcatSource, SubsetSource
from sslight.data.sources.file_list import FileListSource
from sslight.data.sources.fingerprint import DataFingerprint, data_fingerprint
from sslight.data.sources.folder import FolderSource
from sslight.data.sources.h5.source import H5Source
from sslight.data.sources.source import Source, labels_in
from sslight.data.sources.subset import select_subset
from sslight.data.sources.suffixes import passed_over_in_words
from sslight.data.sources.synthetic import SyntheticSource
from sslight.data.sources.tar.remote import StoreUnavailable
from sslight.data.sources.tar.source import TarSource

__all__ = [
    "DEFAULT_LIMITS",
    "AnnotatedImage",
    "BadImage",
    "ConcatSource",
    "CropBatch",
    "CropLoader",
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
    "default_workers",
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
    "passed_over",
    "passed_over_in_words",
    "readable_images",
    "select_subset",
    "source_notice",
    "write_bad_images",
]
