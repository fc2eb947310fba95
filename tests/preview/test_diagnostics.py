"""The numbers about views, against loops over boxes and pixels and against closed forms."""

from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sslight.config import ViewSettings, load_recipe
from sslight.preview.diagnostics import RATIO_EDGES, SHARE_EDGES, common_areas, measure_views
from sslight.views import build_multi_crop

Boxes = npt.NDArray[np.int64]
WIDE = np.array([[375, 500]])


def mask(box: list[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    painted = np.zeros((height, width), dtype=np.bool_)
    top, left, box_height, box_width = box
    painted[top : top + box_height, left : left + box_width] = True
    return painted


def test_common_areas_are_the_painted_pixels_that_boxes_share() -> None:
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 13, (20, 5, 2, 2)), axis=2)
    boxes: Boxes = np.concatenate([ends[:, :, 0], ends[:, :, 1] - ends[:, :, 0]], axis=-1)
    ours, others = boxes[:, :2], boxes[:, 2:]
    areas = common_areas(ours, others)
    assert areas.shape == (20, 2, 3)
    assert areas.any()
    for n, a, b in np.ndindex(areas.shape):
        shared = mask(ours[n, a].tolist(), 12, 12) & mask(others[n, b].tolist(), 12, 12)
        assert areas[n, a, b] == shared.sum()


def naive(settings: ViewSettings, height: int, width: int, draws: int, seed: int) -> dict[str, list[float]]:
    """All quantities by loops over images, views and pairs."""
    rng = np.random.Generator(np.random.Philox(seed))
    found: dict[str, list[float]] = {}
    for boxes in build_multi_crop(settings).draw_boxes(height, width, draws, rng).tolist():
        views = [
            (*box, settings.global_size if v < settings.num_global else settings.local_size)
            for v, box in enumerate(boxes)
        ]
        for v, (_, _, h, w, size) in enumerate(views):
            kind = "global" if v < settings.num_global else "local"
            found.setdefault(f"{kind}_share", []).append(h * w / (height * width))
            found.setdefault(f"{kind}_magnification", []).append(size / (h * w) ** 0.5)
        for g in range(settings.num_global):
            top, left, h, w, size = views[g]
            for v in range(g + 1, len(views)):
                top2, left2, h2, w2, size2 = views[v]
                rows = len(set(range(top, top + h)) & set(range(top2, top2 + h2)))
                columns = len(set(range(left, left + w)) & set(range(left2, left2 + w2)))
                iou = rows * columns / (h * w + h2 * w2 - rows * columns)
                if v < settings.num_global:
                    found.setdefault("global_global_iou", []).append(iou)
                else:
                    found.setdefault("local_global_iou", []).append(iou)
                    found.setdefault("local_in_global", []).append(rows * columns / (h2 * w2))
                    ratio = (size2 / (h2 * w2) ** 0.5) / (size / (h * w) ** 0.5)
                    found.setdefault("object_size_ratio", []).append(ratio)
    return found


@pytest.mark.parametrize("num_global", [2, 3])
def test_all_quantities_are_those_of_loops_over_pairs(num_global: int) -> None:
    settings = load_recipe("dino_cnn_sslight", {"views.num_global": num_global}).views
    statistics = measure_views(settings, WIDE, num_draws=30, seed=3)
    expected = naive(settings, 375, 500, 30, seed=3)
    assert len(expected) == 8
    for name, values in expected.items():
        measured = getattr(statistics, name)
        assert measured.mean == pytest.approx(np.mean(values))
        assert measured.median == pytest.approx(np.median(values))
        assert (measured.low, measured.high) == pytest.approx(np.quantile(values, [0.05, 0.95]))
    assert statistics.apart == np.mean(np.array(expected["local_in_global"]) == 0)


def test_histograms_count_every_draw_in_the_bin_where_it_lies() -> None:
    settings = load_recipe("dino_cnn_baseline").views
    statistics = measure_views(settings, WIDE, num_draws=50, seed=0)
    expected = naive(settings, 375, 500, 50, seed=0)
    assert statistics.local_in_global is not None
    assert statistics.object_size_ratio is not None
    for edges, measured, values, place in (
        (SHARE_EDGES, statistics.local_in_global, expected["local_in_global"], lambda x: x * 20),
        (RATIO_EDGES, statistics.object_size_ratio, expected["object_size_ratio"], lambda x: (log2(x) + 2) * 6),
    ):
        counts = [0] * (len(edges) - 1)
        for value in values:
            counts[max(0, min(int(place(value)), len(counts) - 1))] += 1
        assert np.array(measured.histogram) * len(values) == pytest.approx(counts, abs=1.01)  # a value on an edge
        assert sum(measured.histogram) == pytest.approx(1)


def test_boxes_of_fixed_size_overlap_as_all_their_places_do() -> None:
    """A square of 6 px and one of 14 px in 20 px: every pair of places is equally likely."""
    fixed: dict[str, Any] = {"global_scale": (0.49, 0.49), "local_scale": (0.09, 0.09), "aspect_ratio": (1.0, 1.0)}
    settings = ViewSettings(global_size=28, local_size=8, **fixed)
    statistics = measure_views(settings, np.array([[20, 20]]), num_draws=20_000, seed=0)
    along_a_side = [max(0, min(a + 14, b + 6) - max(a, b)) for a in range(7) for b in range(15)]
    assert statistics.local_in_global is not None
    assert statistics.local_in_global.mean == pytest.approx((np.mean(along_a_side) / 6) ** 2, abs=0.004)
    assert statistics.local_share is not None
    assert (statistics.local_share.low, statistics.local_share.high) == (0.09, 0.09)
    assert statistics.object_size_ratio is not None
    assert statistics.object_size_ratio.median == pytest.approx((8 / 6) / (28 / 14))
    assert statistics.matching_local_size == pytest.approx(12)
    assert statistics.nominal_local_size == pytest.approx(28 * (0.09 / 0.49) ** 0.5)


def test_whole_images_as_global_views_contain_every_local_view() -> None:
    settings = ViewSettings(global_scale=(1.0, 1.0), aspect_ratio=(1.0, 1.0))
    statistics = measure_views(settings, np.array([[400, 400]]), num_draws=2000, seed=0)
    assert statistics.local_in_global is not None
    assert statistics.local_in_global.low == 1.0
    assert statistics.apart == 0.0
    assert statistics.global_global_iou.mean == 1.0
    assert statistics.local_share is not None
    assert statistics.local_share.mean == pytest.approx((0.05 + 0.14) / 2, abs=0.001)  # uniform, and always fits
    assert statistics.local_global_iou is not None
    assert statistics.local_global_iou.mean == pytest.approx(statistics.local_share.mean)


def test_the_side_of_the_paper_follows_from_the_mean_scales() -> None:
    statistics = measure_views(load_recipe("dino_cnn_sslight").views, WIDE, num_draws=100, seed=0)
    assert statistics.nominal_local_size == pytest.approx(224 * (0.175 / 0.65) ** 0.5)
    assert round(224 * (0.175 / 0.65) ** 0.5) == 116


def test_draws_are_spread_evenly_over_the_images() -> None:
    """An image counts as often as it is there, whatever others look like."""
    settings = load_recipe("dino_cnn_sslight").views
    shares = [
        measure_views(settings, np.array(sizes), num_draws=8000, seed=0).global_share.mean
        for sizes in ([[100, 100]], [[100, 600]], [[100, 100], [100, 600], [100, 100], [100, 100]])
    ]
    assert shares[0] - shares[1] > 0.1
    assert shares[2] == pytest.approx((3 * shares[0] + shares[1]) / 4, abs=0.01)


def test_without_local_views_there_is_nothing_to_say_about_them() -> None:
    settings = load_recipe("dino_cnn_sslight", {"views.num_local": 0}).views
    statistics = measure_views(settings, WIDE, num_draws=100, seed=0)
    assert statistics.global_share.mean > 0.3
    assert statistics.local_in_global is None
    assert statistics.matching_local_size is None
