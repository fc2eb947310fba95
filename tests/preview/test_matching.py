"""What is called a mismatch, and that the proposed values end it."""

from typing import Any

import numpy as np
import pytest

from sslight.config import load_recipe, parse_assignments, recipe_names
from sslight.preview.diagnostics import measure_views
from sslight.preview.matching import Mismatch, find_mismatches

PHOTOGRAPHS = [[375, 500]] * 3 + [[500, 375], [400, 400]]
SMALL = [[64, 64]]


def mismatches(
    recipe: str, overrides: dict[str, Any] | None = None, sizes: list[list[int]] = PHOTOGRAPHS, patch: int | None = None
) -> list[Mismatch]:
    settings = load_recipe(recipe, overrides)
    statistics = measure_views(settings.views, np.array(sizes), num_draws=2000, seed=0)
    return find_mismatches(settings, statistics, np.array(sizes), patch_side=patch)


@pytest.mark.parametrize("recipe", [name for name in recipe_names() if name.endswith(("_baseline", "_sslight"))])
def test_published_recipes_match_photographs_but_for_the_side_that_sslight_mends(recipe: str) -> None:
    found = mismatches(recipe, patch=16 if "vit" in recipe else None)
    if recipe != "dino_vit_baseline":
        assert found == []
        return
    assert [mismatch.about for mismatch in found] == ["object size"]
    assert found[0].proposal in [("views.local_size=112",), ("views.local_size=128",)]  # 119 px lie between
    assert "views.local_size=96 is far from the 119 px" in found[0].sentence


@pytest.mark.parametrize("recipe", ["quickstart", "dino_cnn_sslight_64", "swav_cnn_sslight_64", "moco_cnn_sslight_64"])
def test_the_recipes_for_small_images_match_them(recipe: str) -> None:
    assert mismatches(recipe, sizes=SMALL) == []


CASES: list[tuple[str, str, dict[str, Any], list[list[int]], int | None, str]] = [
    ("object size", "dino_cnn_sslight", {"views.local_size": 96}, PHOTOGRAPHS, None, "objects are 0.7"),
    ("object size", "dino_cnn_baseline", {"views.local_size": 128}, PHOTOGRAPHS, None, "objects are 1.2"),
    ("overlap", "dino_cnn_baseline", {"views.global_scale": [0.05, 0.2]}, PHOTOGRAPHS, None, "share no pixel"),
    ("local share", "dino_cnn_sslight", {"views.local_scale": [0.3, 0.9]}, PHOTOGRAPHS, None, "hardly local"),
    (
        "blur",
        "dino_cnn_sslight_64",
        {"views.blur_sigma": [0.1, 2.0]},
        SMALL,
        None,
        "a blur of up to 2 px (views.blur_sigma) is 5.6 %",
    ),
    ("magnification", "dino_cnn_sslight", {}, SMALL, None, "views.global_size=224 enlarges crops 4.5 times"),
    ("magnification", "dino_vit_sslight", {}, [[100, 120]], 16, "this costs compute and adds no information"),
    ("patches", "dino_vit_sslight", {"views.local_size": 120}, PHOTOGRAPHS, 16, "views.local_size=120 is not a mul"),
    ("pair weight", "dino_cnn_sslight", {"global_pair_weight": 1.0}, PHOTOGRAPHS, None, "leaves local views out"),
]


@pytest.mark.parametrize(("about", "recipe", "overrides", "sizes", "patch", "words"), CASES)
def test_a_mismatch_is_named_and_the_proposal_ends_it(
    about: str, recipe: str, overrides: dict[str, Any], sizes: list[list[int]], patch: int | None, words: str
) -> None:
    found = {mismatch.about: mismatch for mismatch in mismatches(recipe, overrides, sizes, patch)}
    assert words in found[about].sentence
    assert found[about].sentence.endswith(".")
    assert found[about].proposal
    changed = overrides | parse_assignments(found[about].proposal)
    assert about not in {mismatch.about for mismatch in mismatches(recipe, changed, sizes, patch)}


def test_images_of_32_px_are_not_told_to_give_a_network_less_than_it_needs() -> None:
    assert "magnification" not in {m.about for m in mismatches("dino_cnn_sslight_64", sizes=[[32, 32]])}


def test_local_settings_do_not_matter_without_local_views() -> None:
    overrides = {"views.num_local": 0, "global_pair_weight": None}
    assert mismatches("dino_cnn_sslight", overrides) == []
