"""The recipes of a page about views: which are named, what is changed in them, and the baseline beside one alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sslight.config.explain import section_keys
from sslight.config.overrides import flatten
from sslight.config.recipes import load_recipe, read_recipe, recipe_names
from sslight.config.schema.pretrain_settings import PretrainSettings

_DEFAULT_RECIPES = ("dino_cnn_baseline", "dino_cnn_sslight")


@dataclass(frozen=True)
class ShownRecipe:
    """A recipe on the page: its name, the changes to it as assignments, and the resulting settings."""

    name: str
    changes: tuple[str, ...]
    settings: PretrainSettings


def build_shown_recipes(names: list[str], overrides: Mapping[str, Any]) -> list[ShownRecipe]:
    """The recipes of a page, the one to compare with first.

    Changes apply to the recipes that are named (to SSLight's if none is), never to an added baseline. Raises ValueError
    for an unknown recipe, a wrong value, or a setting that has nothing to do with views.
    """
    flat = flatten(overrides)
    of_views = {*section_keys("views"), "global_pair_weight", "method", "backbone", "patch_size"}
    for key, value in flat.items():
        if key not in of_views:
            raise ValueError(f"{key}={value} would have no effect on views: leave it out.")
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise ValueError(f"recipe {twice} is given twice: name each recipe once.")
    shown = names or list(_DEFAULT_RECIPES[1:])
    baseline = _baseline_of(shown[0]) if len(shown) == 1 else None
    changes = tuple(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in flat.items())
    recipes = [ShownRecipe(name, changes, load_recipe(name, flat)) for name in shown]
    if baseline is None or (baseline == shown[0] and not changes):
        return recipes
    return [ShownRecipe(baseline, (), load_recipe(baseline)), *recipes]


def _baseline_of(name: str) -> str | None:
    """The baseline of a recipe or of the one that it inherits; None if none of them has one."""
    known = recipe_names()
    ancestor: str | None = name
    while ancestor is not None:
        baseline = ancestor.replace("_sslight", "_baseline")
        if baseline in known and "_baseline" in baseline:
            return baseline
        ancestor = read_recipe(ancestor).inherits
    return None
