"""Typed settings, recipes and overrides: the only room that knows YAML."""

from sslight.config.explain import Explanation, explain, section_keys, setting_keys
from sslight.config.overrides import parse_assignments
from sslight.config.recipes import Recipe, load_recipe, read_recipe, recipe_names, to_yaml
from sslight.config.settings import (
    CheckpointSettings,
    DataSettings,
    DINOSettings,
    OptimSettings,
    PretrainSettings,
    ProbeSettings,
    ViewSettings,
)

__all__ = [
    "CheckpointSettings",
    "DINOSettings",
    "DataSettings",
    "Explanation",
    "OptimSettings",
    "PretrainSettings",
    "ProbeSettings",
    "Recipe",
    "ViewSettings",
    "explain",
    "load_recipe",
    "parse_assignments",
    "read_recipe",
    "recipe_names",
    "section_keys",
    "setting_keys",
    "to_yaml",
]
