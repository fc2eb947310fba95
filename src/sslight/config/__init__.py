"""Typed settings, recipes and overrides: the only room that knows YAML."""

from sslight.config.commands import (
    COMMANDS,
    FIRST_WORDS,
    KINDS,
    AutoSettings,
    BenchSettings,
    ConfigSettings,
    ImportSettings,
    PlanSettings,
    image_paths,
    is_setting,
    read_words,
    take_settings,
    usage,
)
from sslight.config.explain import Explanation, explain, section_keys, setting_keys
from sslight.config.original.translate import translate_original
from sslight.config.overrides import (
    build,
    build_settings,
    parse_assignments,
)
from sslight.config.plain_yaml import flat_settings, write_yaml
from sslight.config.recipes import (
    Recipe,
    load_recipe,
    read_plain_settings,
    read_recipe,
    read_settings,
    recipe_names,
    to_yaml,
)
from sslight.config.schema.detect_settings import DetectSettings
from sslight.config.schema.evaluate_settings import LABELED, EvaluateSettings
from sslight.config.schema.export_settings import ExportSettings
from sslight.config.schema.finetune_settings import BEGINNINGS, FinetuneSettings
from sslight.config.schema.pack_settings import InspectSettings, PackSettings
from sslight.config.schema.predict_settings import EmbedSettings, PredictSettings, SelectSettings
from sslight.config.schema.pretrain_settings import PretrainSettings, ViewSettings
from sslight.config.schema.report_settings import ReportSettings
from sslight.config.schema.training_settings import CheckpointSettings, OptimSettings
from sslight.config.schema.views_settings import ViewsPageSettings
from sslight.config.shown_recipes import ShownRecipe, build_shown_recipes

# fmt: off
__all__ = [
    "BEGINNINGS", "COMMANDS", "FIRST_WORDS", "KINDS", "LABELED", "AutoSettings", "BenchSettings", "CheckpointSettings",
    "ConfigSettings", "DetectSettings", "EmbedSettings", "EvaluateSettings", "Explanation", "ExportSettings",
    "FinetuneSettings", "ImportSettings", "InspectSettings", "OptimSettings", "PackSettings", "PlanSettings",
    "PredictSettings", "PretrainSettings", "Recipe", "ReportSettings", "SelectSettings", "ShownRecipe",
    "ViewSettings", "ViewsPageSettings", "build",
    "build_settings", "build_shown_recipes", "explain",
    "flat_settings", "image_paths", "is_setting", "load_recipe", "parse_assignments", "read_plain_settings",
    "read_recipe", "read_settings", "read_words", "recipe_names", "section_keys", "setting_keys", "take_settings",
    "to_yaml", "translate_original", "usage", "write_yaml",
]
# fmt: on
