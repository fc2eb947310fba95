"""Where the settings of views do not match each other or the images, in words, with values that do."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sslight.config import PretrainSettings, ViewSettings
from sslight.preview.diagnostics import ViewStatistics, measure_views
from sslight.preview.workload import measure_workload

Int64Array = npt.NDArray[np.int64]

# Limits that leave the paper's recipes alone at their sizes, but for those that it improves on.
SIZE_TOLERANCE = 1.15
LEAST_INSIDE, MOST_APART = 0.5, 0.2
LARGEST_LOCAL = 0.7
LARGEST_BLUR = 0.03
LARGEST_MAGNIFICATION = 2.0

_PUBLISHED_BLUR = 2.0 / 224
_SMALLEST_GLOBAL_SIZE = 64  # a CNN divides by 32, so that 2 × 2 positions are left
_GLOBAL_SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Mismatch:
    """What does not match (``about``), in a sentence, and assignments that would."""

    about: str
    sentence: str
    proposal: tuple[str, ...]


def find_mismatches(
    settings: PretrainSettings, statistics: ViewStatistics, sizes: Int64Array, *, patch_side: int | None
) -> list[Mismatch]:
    """What is badly matched in the views of a recipe for images of some sizes (height, width ``[N, 2]``) in px.

    ``statistics`` are of these settings and images; ``patch_side`` is that of a ViT in px, None for other networks.
    """
    views = settings.views
    found = list(_enlarged(views, statistics, sizes, patch_side))
    if not found:  # its values for both sides match already
        found += [*_patches(views, patch_side), *_object_size(views, statistics, patch_side)]
    found += [*_overlap(views, statistics, sizes), *_not_local(views, statistics)]
    return [*found, *_blur(views), *_unused_local_views(settings)]


def describe_match(statistics: ViewStatistics) -> str:
    """The figures that count, in a sentence."""
    if statistics.local_in_global is None or statistics.object_size_ratio is None:
        return "There are no local views."
    return (
        f"Objects are {statistics.object_size_ratio.median:.2f} times as large in local views as in global ones, and "
        f"{_percent(statistics.local_in_global.mean)} of a local view lies in a global one."
    )


def _enlarged(
    views: ViewSettings, statistics: ViewStatistics, sizes: Int64Array, patch_side: int | None
) -> Iterator[Mismatch]:
    magnification = statistics.global_magnification.median
    side = float(np.median(np.sqrt(sizes.prod(axis=1))))
    unit = patch_side or 8
    global_size = max(_SMALLEST_GLOBAL_SIZE, _nearest(side, unit))
    if magnification <= LARGEST_MAGNIFICATION or global_size >= views.global_size:
        return
    proposal = [f"views.global_size={global_size}"]
    if statistics.matching_local_size is not None:
        local_size = statistics.matching_local_size * global_size / views.global_size
        proposal.append(f"views.local_size={_nearest(local_size, patch_side or 4)}")
    recipes = "; the recipes that end in _64 are made for such images" if global_size <= 96 else ""
    yield Mismatch(
        "magnification",
        f"the images are about {side:.0f} px wide and high, and views.global_size={views.global_size} enlarges "
        f"crops {magnification:.1f} times: this costs compute and adds no information{recipes}.",
        tuple(proposal),
    )


def _patches(views: ViewSettings, patch_side: int | None) -> Iterator[Mismatch]:
    sizes = {"global_size": views.global_size} | ({"local_size": views.local_size} if views.num_local else {})
    for name, size in sizes.items():
        if patch_side is not None and size % patch_side:
            yield Mismatch(
                "patches",
                f"views.{name}={size} is not a multiple of the patches' {patch_side} px: training refuses such views.",
                (f"views.{name}={_nearest(size, patch_side)}",),
            )


def _object_size(views: ViewSettings, statistics: ViewStatistics, patch_side: int | None) -> Iterator[Mismatch]:
    if statistics.object_size_ratio is None or statistics.matching_local_size is None:
        return
    ratio = statistics.object_size_ratio.median
    matching = _nearest(statistics.matching_local_size, patch_side or 4)
    if 1 / SIZE_TOLERANCE <= ratio <= SIZE_TOLERANCE or matching == views.local_size:
        return
    proposal = (f"views.local_size={matching}",) if 8 <= matching <= views.global_size else ()
    yield Mismatch(
        "object size",
        f"objects are {ratio:.2f} times as large in local views as in global ones: with these crop scales "
        f"views.local_size={views.local_size} is far from the {statistics.matching_local_size:.0f} px at which "
        f"sizes match.",
        proposal,
    )


def _overlap(views: ViewSettings, statistics: ViewStatistics, sizes: Int64Array) -> Iterator[Mismatch]:
    if _overlaps(statistics):
        return
    assert statistics.local_in_global is not None
    assert statistics.apart is not None
    proposal: tuple[str, ...] = ()
    for low in _GLOBAL_SCALES:
        if low > views.global_scale[0]:
            changed = views.model_copy(update={"global_scale": (low, 1.0)})
            if _overlaps(measure_views(changed, sizes, num_draws=1000, seed=0)):
                proposal = (f"views.global_scale=[{low:g}, 1.0]",)
                break
    yield Mismatch(
        "overlap",
        f"local and global views have little in common: {_percent(statistics.local_in_global.mean)} of a local view "
        f"lies in a global one on average, and {_percent(statistics.apart)} of the pairs share no pixel "
        f"(views.global_scale={list(views.global_scale)}, views.local_scale={list(views.local_scale)}).",
        proposal,
    )


def _overlaps(statistics: ViewStatistics) -> bool:
    inside, apart = statistics.local_in_global, statistics.apart
    return inside is None or apart is None or (inside.mean >= LEAST_INSIDE and apart <= MOST_APART)


def _not_local(views: ViewSettings, statistics: ViewStatistics) -> Iterator[Mismatch]:
    if statistics.local_share is None:
        return
    local, whole = statistics.local_share.mean, statistics.global_share.mean
    if local > LARGEST_LOCAL * whole:
        yield Mismatch(
            "local share",
            f"local views are hardly local: views.local_scale={list(views.local_scale)} shows {_percent(local)} of the "
            f"image on average, a global view {_percent(whole)}.",
            ("views.local_scale=[0.05, 0.3]",) if views.local_scale != (0.05, 0.3) else (),
        )


def _blur(views: ViewSettings) -> Iterator[Mismatch]:
    sides = [("global", views.global_size, max(views.blur_prob[:2]))]
    if views.num_local:
        sides.append(("local", views.local_size, views.blur_prob[2]))
    low, high = views.blur_sigma
    side, kind = min(((side, kind) for kind, side, prob in sides if prob > 0), default=(None, ""))
    if side is None or high <= LARGEST_BLUR * side:
        return
    proposed = max(0.1, round(_PUBLISHED_BLUR * views.global_size, 1))
    yield Mismatch(
        "blur",
        f"a blur of up to {high:g} px (views.blur_sigma) is {100 * high / side:.1f} % of the size of a {kind} view of "
        f"{side} px and leaves little detail; the published value is 2 px for 224 and 96 px.",
        (f"views.blur_sigma=[{min(low, proposed):g}, {proposed:g}]",),
    )


def _unused_local_views(settings: PretrainSettings) -> Iterator[Mismatch]:
    views, workload = settings.views, measure_workload(settings)
    if views.num_local and settings.global_pair_weight == 1:
        share = views.num_local * views.local_size**2 / workload.trained_pixels
        yield Mismatch(
            "pair weight",
            f"global_pair_weight=1 leaves local views out of the loss, though they are {_percent(share)} of what the "
            f"trained network sees.",
            ("global_pair_weight=0.4",),
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _nearest(value: float, unit: int) -> int:
    return max(unit, round(value / unit) * unit)
