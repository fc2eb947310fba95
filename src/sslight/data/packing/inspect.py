"""What a set of images holds."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sslight.data.decoding.decode import decode, format_mode_and_orientation
from sslight.data.decoding.limits import DEFAULT_LIMITS, ReadLimits, UnreadableImage
from sslight.data.packing.parallel import map_in_order
from sslight.data.sources.bad_images import BadImage, bad_image
from sslight.data.sources.build import masks_in_words, passed_over
from sslight.data.sources.source import Source, evenly_spread

CHUNK = 64  # Images that a worker looks at in one go
QUANTILES = {"smallest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "largest": 1.0}


@dataclass(frozen=True)
class Inspection:
    """A set in numbers.

    ``num_inspected`` of ``num_images`` images were decoded, and what follows is of these. ``distributions`` gives
    quantiles of bytes, width, height and shorter side in px of the upright picture, and megapixels; ``formats`` and
    ``modes`` (PIL's names: L is gray, P a palette) count images; ``num_rotated`` have an EXIF orientation.
    ``images_a_class`` is over all images and None without classes. ``passed_over`` and ``masks`` are as the
    functions give them.
    """

    num_images: int
    num_inspected: int
    num_classes: int | None
    images_a_class: dict[str, float] | None
    classes: dict[str, int] | None
    num_bytes: int
    distributions: dict[str, dict[str, float]]
    formats: dict[str, int]
    modes: dict[str, int]
    num_rotated: int
    passed_over: dict[str, int] = field(default_factory=dict)
    masks: str = ""
    unreadable: list[BadImage] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    num_bytes: int
    height: int
    width: int
    format: str
    mode: str
    orientation: int


def inspect_source(
    source: Source,
    *,
    sample: int | None = None,
    workers: int = 0,
    limits: ReadLimits = DEFAULT_LIMITS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Decode all images, or ``sample`` evenly spread ones, and sum up what they are."""
    indices = evenly_spread(len(source), len(source) if sample is None else sample).tolist()
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    seen: list[_Seen] = []
    unreadable: list[BadImage] = []
    with closing(map_in_order(partial(_look, source, limits.max_pixels), chunks, workers=workers)) as looked_at:
        for chunk in looked_at:
            seen += [image for image in chunk if isinstance(image, _Seen)]
            unreadable += [image for image in chunk if isinstance(image, BadImage)]
            progress(len(seen) + len(unreadable), len(indices))
    sizes = None
    if source.classes is not None and source.labels is not None:
        counts = np.bincount(source.labels, minlength=len(source.classes))
        sizes = dict(zip(source.classes, counts.tolist(), strict=True))
    return Inspection(
        num_images=len(source),
        num_inspected=len(indices),
        num_classes=None if sizes is None else len(sizes),
        images_a_class=None if sizes is None else _quantiles(sizes.values()),
        classes=sizes,
        num_bytes=sum(image.num_bytes for image in seen),
        distributions=_distributions(seen),
        formats=dict(Counter(image.format for image in seen).most_common()),
        modes=dict(Counter(image.mode for image in seen).most_common()),
        num_rotated=sum(image.orientation in range(2, 9) for image in seen),
        passed_over=passed_over(source),
        masks=masks_in_words(source),
        unreadable=unreadable,
    )


def _look(source: Source, max_pixels: int, indices: list[int]) -> list[_Seen | BadImage]:
    found: list[_Seen | BadImage] = []
    for index in indices:
        try:
            encoded = source.read(index)
            height, width = decode(encoded, max_pixels=max_pixels).shape[1:]
            found.append(_Seen(len(encoded), height, width, *format_mode_and_orientation(encoded)))
        except (UnreadableImage, OSError) as error:
            found.append(bad_image(source, index, error))
    return found


def _distributions(seen: list[_Seen]) -> dict[str, dict[str, float]]:
    if not seen:
        return {}
    return {
        "bytes": _quantiles(image.num_bytes for image in seen),
        "width": _quantiles(image.width for image in seen),
        "height": _quantiles(image.height for image in seen),
        "short side": _quantiles(min(image.width, image.height) for image in seen),
        "megapixels": _quantiles(image.width * image.height / 1e6 for image in seen),
    }


def _quantiles(values: Iterable[float]) -> dict[str, float]:
    # "lower" gives values that occur, whole numbers among them.
    found = np.quantile(list(values), list(QUANTILES.values()), method="lower").tolist()
    return dict(zip(QUANTILES, found, strict=True))
