"""The draws against those of the original, over as many images."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from sslight.views import MultiCrop, ViewParameters
from tests.views.recorded import STATISTICS

LETTERS = "bcsh"
FACTORS = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
RECIPES = [name for name, case in STATISTICS.items() if "views" in case]
DRAWS = [5_000, pytest.param(20_000, marks=pytest.mark.slow)]
Array = npt.NDArray[Any]


def multi_crop_of(recorded: dict[str, Any]) -> MultiCrop:
    """The original's settings in our words."""
    s = recorded["settings"]
    return MultiCrop(
        num_local=s["LOCAL_CROPS_NUMBER"],
        global_size=s["GLOBAL_CROP_SIZE"],
        local_size=s["LOCAL_CROP_SIZE"],
        global_scale=s["GLOBAL_CROPS_SCALE"],
        local_scale=s["LOCAL_CROPS_SCALE"],
        flip_prob=s["RANDOM_HORIZONTAL_FLIP_PROB"][0],
        jitter=s["COLOR_JITTER_INTENSITY"],
        jitter_prob=s["COLOR_JITTER_PROB"][0],
        grayscale_prob=s["GREYSCALE_PROB"][0],
        blur_prob=s["GAUSSIAN_BLUR_PROB"],
        solarize_prob=s["SOLARIZATION_PROB"],
    )


def chi_square(ours: Array, theirs: Array) -> float:
    """P of the two-sample chi-square test; bins with few counts in both are put together."""
    ours, theirs = np.asarray(ours, float).ravel(), np.asarray(theirs, float).ravel()
    rare = ours + theirs < 20
    table = np.stack([np.append(c[~rare], c[rare].sum()) for c in (ours, theirs)])
    table = table[:, table.sum(axis=0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table, correction=False).pvalue)


def histogram(values: Array, recorded: dict[str, Any]) -> Array:
    return np.histogram(values, bins=recorded["bins"], range=(recorded["lo"], recorded["hi"]))[0]


def compare_geometry(boxes: Array, height: int, width: int, recorded: dict[str, Any]) -> dict[str, float]:
    top, left, box_height, box_width = boxes.T
    area, aspect = box_height * box_width / (height * width), np.log(box_width / box_height)
    joint = recorded["area_by_log_aspect"]
    ranges = (joint["area_range"], joint["log_aspect_range"])
    counts = np.histogram2d(area, aspect, bins=joint["shape"], range=ranges)[0]
    free_top, free_left = height - box_height, width - box_width
    tops, lefts = top[free_top > 0] / free_top[free_top > 0], left[free_left > 0] / free_left[free_left > 0]
    return {
        "area": chi_square(
            histogram(area, recorded["area_fraction"]["hist"]), recorded["area_fraction"]["hist"]["counts"]
        ),
        "aspect": chi_square(
            histogram(aspect, recorded["log_aspect"]["hist"]), recorded["log_aspect"]["hist"]["counts"]
        ),
        "area and aspect": chi_square(counts, joint["counts"]),
        "top": chi_square(histogram(tops, recorded["top_offset"]), recorded["top_offset"]["counts"]),
        "left": chi_square(histogram(lefts, recorded["left_offset"]), recorded["left_offset"]["counts"]),
    }


def compare_view(draws: dict[str, Array], recorded: dict[str, Any]) -> dict[str, float]:
    """P of every comparison of one kind of view; ``draws`` are the fields of ViewParameters, one row a view."""
    n = len(draws["flip"])

    def share(count: int, expected: int) -> float:
        return chi_square(np.array([count, n - count]), np.array([expected, recorded["n"] - expected]))

    jitter, blurred = draws["jitter"], draws["blur_sigma"] > 0
    p = {
        "flip": share(draws["flip"].sum(), recorded["flip"]),
        "jitter": share(jitter.sum(), recorded["colour_jitter"]),
        "grey": share(draws["gray"].sum(), recorded["grayscale"]),
        "blur": share(blurred.sum(), recorded["blur"]),
        "solarise": share(draws["solarize"].sum(), recorded["solarise"]),
        "jitter and grey": share((jitter & draws["gray"]).sum(), recorded["jitter_and_grayscale"]),
    }
    radius = recorded["blur_radius"]["hist"]
    p["radius"] = chi_square(histogram(draws["blur_sigma"][blurred], radius), radius["counts"])
    for k, name in enumerate(FACTORS):
        factor = recorded[name]["hist"]
        p[name] = chi_square(histogram(draws["jitter_factors"][jitter, k], factor), factor["counts"])
    orders = [">".join(LETTERS[k] for k in order) for order in draws["jitter_order"][jitter]]
    expected = recorded["jitter_order_counts"]
    p["order"] = chi_square(np.array([orders.count(order) for order in expected]), np.array(list(expected.values())))
    return p


def rows(parameters: list[ViewParameters], views: slice) -> dict[str, Array]:
    return {
        name: np.concatenate([getattr(drawn, name)[views] for drawn in parameters])
        for name in ("boxes", "flip", "jitter", "jitter_order", "jitter_factors", "gray", "blur_sigma", "solarize")
    }


@pytest.mark.parametrize("num_images", DRAWS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_draws_have_the_recorded_distribution(recipe: str, num_images: int) -> None:
    case = STATISTICS[recipe]
    height, width = case["image_height"], case["image_width"]
    multi_crop = multi_crop_of(case)
    parameters = [multi_crop.draw(height, width, (7, 0, i)) for i in range(num_images)]
    kinds = {
        "global 1": (slice(0, 1), case["views"][0]),
        "global 2": (slice(1, 2), case["views"][1]),
        "local": (slice(2, None), case["all_local_views_pooled"]),
    }
    for kind, (views, recorded) in kinds.items():
        draws = rows(parameters, views)
        p = compare_view(draws, recorded) | compare_geometry(draws["boxes"], height, width, recorded["geometry"])
        low = {name: value for name, value in p.items() if value < 1e-4}
        assert not low, f"{recipe}, {kind}: {low}"


def test_a_classifiers_training_crop_has_the_recorded_distribution() -> None:
    case = STATISTICS["linear_evaluation_training_crop"]
    multi_crop = MultiCrop(num_global=20_000, num_local=0, global_scale=(0.08, 1.0))
    drawn = multi_crop.draw(case["image_height"], case["image_width"], (0,))
    p = compare_geometry(drawn.boxes, case["image_height"], case["image_width"], case["geometry"])
    assert min(p.values()) > 1e-4, p


def test_the_comparison_notices_a_wrong_scale() -> None:
    case = STATISTICS["dino_cnn_sslight_500x375"]
    drawn = MultiCrop(num_global=2_500, num_local=0, global_scale=(0.25, 1.0)).draw(375, 500, (0,))
    p = compare_geometry(drawn.boxes, 375, 500, case["views"][1]["geometry"])
    assert p["area"] < 1e-6


def test_every_global_view_after_the_first_is_drawn_like_the_second() -> None:
    recorded = STATISTICS["dino_cnn_sslight_500x375"]["views"][1]
    drawn = MultiCrop(num_global=20_001, num_local=0, global_scale=(0.3, 1.0)).draw(375, 500, (3,))
    p = compare_view(rows([drawn], slice(1, None)), recorded)
    assert min(p.values()) > 1e-4, p
