"""Which recipes a page about views shows."""

from pathlib import Path

import pytest

from sslight.config import (
    ShownRecipe,
    ViewsPageSettings,
    build_shown_recipes,
    load_recipe,
    read_words,
    take_settings,
)


def page_of(*words: str) -> tuple[ViewsPageSettings, list[ShownRecipe]]:
    _, typed = read_words("views", ["images", *words])
    page = take_settings(typed, ViewsPageSettings)
    return page, build_shown_recipes(page.recipe, typed)


def shown(*words: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(recipe.name, recipe.changes) for recipe in page_of(*words)[1]]


def test_without_a_recipe_the_two_of_dino_for_cnns_are_shown() -> None:
    assert shown() == [("dino_cnn_baseline", ()), ("dino_cnn_sslight", ())]


def test_a_single_recipe_is_shown_beside_its_baseline() -> None:
    assert shown("recipe=moco_cnn_sslight_64") == [("moco_cnn_baseline_64", ()), ("moco_cnn_sslight_64", ())]
    assert shown("recipe=quickstart") == [("dino_cnn_baseline_64", ()), ("quickstart", ())]
    assert shown("recipe=dino_vit_baseline") == [("dino_vit_baseline", ())]


def test_an_own_file_is_shown_beside_the_baseline_of_the_recipe_that_it_inherits(tmp_path: Path) -> None:
    heir, orphan = tmp_path / "heir.yaml", tmp_path / "orphan.yaml"
    heir.write_text("inherits: dino_vit_sslight\nviews:\n  num_local: 4\n", encoding="utf-8")
    orphan.write_text("views:\n  num_local: 4\n", encoding="utf-8")
    assert shown(f"recipe={heir}") == [("dino_vit_baseline", ()), (str(heir), ())]
    assert shown(f"recipe={orphan}") == [(str(orphan), ())]


def test_several_recipes_are_shown_as_given() -> None:
    named = [("swav_cnn_sslight", ()), ("dino_cnn_sslight", ())]
    assert shown("recipe=[swav_cnn_sslight, dino_cnn_sslight]") == named


def test_changes_apply_to_the_named_recipes_and_not_to_the_added_baseline() -> None:
    _, recipes = page_of("views.local_scale=[0.1, 0.2]", "global_pair_weight=null")
    changes = ("views.local_scale=[0.1, 0.2]", "global_pair_weight=null")
    assert [(r.name, r.changes) for r in recipes] == [("dino_cnn_baseline", ()), ("dino_cnn_sslight", changes)]
    assert recipes[0].settings == load_recipe("dino_cnn_baseline")
    assert recipes[1].settings.views.local_scale == (0.1, 0.2)
    changed = shown("recipe=dino_cnn_baseline", "views.local_size=128")
    assert changed == [("dino_cnn_baseline", ()), ("dino_cnn_baseline", ("views.local_size=128",))]


def test_settings_of_the_page_are_not_those_of_the_recipe() -> None:
    page, _ = page_of("images=2", "draws=500", "seed=7", "output=2024")
    assert (page.images, page.draws, page.seed, page.output) == (2, 500, 7, Path("2024"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epochs=3"], "epochs=3 would have no effect on views"),
        (["data.val=x"], r"data\.val=x would have no effect on views"),
        (
            ["images=0"],
            "images=0: input should be greater than or equal to 1; `sslight config views.images` explains it",
        ),
        (["views.local_sise=3"], r"did you mean views\.local_size"),
        (["recipe=dino_cnn"], "there is no recipe 'dino_cnn': did you mean"),
        (["recipe=[dino_cnn_sslight, dino_cnn_sslight]"], "recipe dino_cnn_sslight is given twice"),
        (["views.local_size=300"], r"views\.local_size=300 is larger"),
    ],
)
def test_wrong_words_end_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        page_of(*words)
