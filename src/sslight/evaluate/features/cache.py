"""Features on disk: computed once for each (weights, data, transform), memory-mapped, whole or not there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.backbones import eval_mode, num_features, weights_fingerprint
from sslight.data import (
    BadImage,
    Source,
    UnreadableImage,
    data_fingerprint,
    decode,
    files_fingerprint,
    no_readable_image,
)
from sslight.evaluate.features.extract import EvalTransform, Extraction, feature_batches
from sslight.files import write_whole
from sslight.train.machine.distributed import barrier, from_first, gathered, rank_and_size

_VERSION = 1  # raise it when the same image would give other features


@dataclass(frozen=True)
class CachedFeatures:
    """Features of the readable images of a set, in its order."""

    features: Tensor  # [N, D] float32, mapped from the disk
    indices: npt.NDArray[np.int64]  # [N], their positions in the source
    num_unreadable: int
    from_cache: bool  # whether the backbone did not have to run


def default_cache() -> Path:
    """``sslight/features`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sslight" / "features"


def check_cache(folder: Path) -> None:
    """Make the cache's folder. Raises ValueError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cache={folder} cannot be written ({error.strerror}): choose another folder.") from None


def cached_features(
    backbone: nn.Module,
    source: Source,
    transform: EvalTransform,
    how: Extraction,
    *,
    folder: Path,
    progress: Callable[[int], None] = lambda images: None,
) -> CachedFeatures:
    """The features of a source, from the cache in ``folder`` or computed and put there.

    All processes get the whole, and must see ``folder``. Processes that compute the same at the same time do not
    disturb each other. ``progress`` is called with the number of images that this process has done since its last call.
    ValueError if no image can be read, or the backbone gives numbers that are not finite; OSError if the folder is full
    or cannot be written.
    """
    first = rank_and_size()[0] == 0
    place = folder / from_first(_key(backbone, source, transform, how) if first else "")
    if from_first(first and _is_intact(place) and _is_as_readable(place, source, how)):
        return _load(place, from_cache=True)
    partial = Path(from_first(str(folder / f".{place.name}.{os.getpid()}.partial")))
    if first:
        partial.mkdir(parents=True)
        shape = (len(source), num_features(backbone))
        np.lib.format.open_memmap(partial / "features.npy", mode="w+", dtype=np.float32, shape=shape).flush()
    try:
        barrier()
        bad: list[BadImage] = []
        batches = feature_batches(backbone, source, transform, how, bad=bad)
        with eval_mode(backbone):
            readable = _fill(partial / "features.npy", batches, source, bad, progress)
        if first:
            np.save(partial / "readable.npy", readable)
            _finish(partial, place)
        barrier()
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
    return _load(place, from_cache=False)


def _is_as_readable(place: Path, source: Source, how: Extraction) -> bool:
    """Whether no image that was left out can be read by now; else the entry is removed."""
    for index in np.flatnonzero(~np.load(place / "readable.npy")).tolist():
        with suppress(UnreadableImage, OSError):
            decode(source.read(index), max_pixels=how.limits.max_pixels)
            shutil.rmtree(place)
            return False
    return True


def _key(backbone: nn.Module, source: Source, transform: EvalTransform, how: Extraction) -> str:
    parts = {
        "version": _VERSION,
        "backbone": [type(backbone).__name__, num_features(backbone)],
        "weights": weights_fingerprint(backbone),
        "data": [data_fingerprint(source).sha256, files_fingerprint(source)],
        "transform": asdict(transform),
        "precision": how.precision,
        "max_pixels": how.limits.max_pixels,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _fill(
    path: Path,
    batches: Iterable[tuple[Tensor, Tensor]],
    source: Source,
    bad: list[BadImage],
    progress: Callable[[int], None],
) -> npt.NDArray[np.bool_]:
    """Write this process's rows; which images of all could be read."""
    target = np.lib.format.open_memmap(path, mode="r+")
    readable = np.zeros(len(source), dtype=np.bool_)
    broken: str | None = None
    for indices, features in batches:
        rows, values = indices.numpy(), features.cpu().numpy()  # the host waits for the device
        target[rows] = values
        readable[rows] = True
        finite = np.isfinite(values).all(axis=1)
        if not finite.all() and broken is None:
            broken = source.locate(int(rows[np.argmin(finite)]))
        progress(len(rows))
    target.flush()
    everyone = gathered((readable, bad, broken))
    for _, _, where in everyone:
        if where is not None:
            raise ValueError(
                f"the backbone gives features that are not finite numbers (first for {where}): its weights are "
                f"broken; evaluate an earlier checkpoint."
            )
    together: npt.NDArray[np.bool_] = np.logical_or.reduce([part for part, _, _ in everyone])
    if not together.any():
        raise ValueError(no_readable_image([image for _, part, _ in everyone for image in part]))
    return together


def _finish(partial: Path, place: Path) -> None:
    """Give a complete entry its name; an entry that another process made meanwhile is as good."""
    sums = {name: _checksum(partial / name) for name in ("features.npy", "readable.npy")}
    write_whole(partial / "checksums.json", json.dumps(sums))
    if place.exists() and not _is_intact(place):
        shutil.rmtree(place)
    with suppress(OSError):
        partial.rename(place)
    assert place.is_dir()


def _is_intact(place: Path) -> bool:
    """Whether a whole entry is there; a damaged one is not used, and replaced."""
    try:
        sums = json.loads((place / "checksums.json").read_text(encoding="utf-8"))
        return bool(sums) and all(_checksum(place / name) == value for name, value in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(place: Path, *, from_cache: bool) -> CachedFeatures:
    # Copy on write: torch takes only writable memory, and the file must not change.
    features = torch.from_numpy(np.load(place / "features.npy", mmap_mode="c"))
    readable = np.load(place / "readable.npy")
    indices = np.flatnonzero(readable)
    if len(indices) < len(readable):
        features = features[torch.from_numpy(indices)]
    return CachedFeatures(features, indices, len(readable) - len(indices), from_cache)
