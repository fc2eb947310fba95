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
from sslight.config.detect_settings import DetectSettings
from sslight.config.evaluate_settings import LABELED, EvaluateSettings
from sslight.config.explain import Explanation, explain, section_keys, setting_keys
from sslight.config.export_settings import ExportSettings
from sslight.config.finetune_settings import FinetuneSettings, build_finetune_settings
from sslight.config.original.translate import translate_original
from sslight.config.overrides import (
    build,
    build_detect_settings,
    build_evaluate_settings,
    build_export_settings,
    build_settings,
    parse_assignments,
)
from sslight.config.pack_settings import InspectSettings, PackSettings
from sslight.config.plain_yaml import flat_settings, write_yaml
from sslight.config.predict_settings import EmbedSettings, PredictSettings, SelectSettings
from sslight.config.pretrain_settings import PretrainSettings, ViewSettings
from sslight.config.recipes import (
    Recipe,
    load_recipe,
    read_plain_settings,
    read_recipe,
    read_settings,
    recipe_names,
    to_yaml,
)
from sslight.config.report_settings import ReportSettings
from sslight.config.training_settings import CheckpointSettings, OptimSettings
from sslight.config.views_settings import (
    ShownRecipe,
    ViewsPageSettings,
    build_shown_recipes,
)

# fmt: off
__all__ = [
    "COMMANDS", "FIRST_WORDS", "KINDS", "LABELED", "AutoSettings", "BenchSettings", "CheckpointSettings",
    "ConfigSettings", "DetectSettings", "EmbedSettings", "EvaluateSettings", "Explanation", "ExportSettings",
    "FinetuneSettings", "ImportSettings", "InspectSettings", "OptimSettings", "PackSettings", "PlanSettings",
    "PredictSettings", "PretrainSettings", "Recipe", "ReportSettings", "SelectSettings", "ShownRecipe",
    "ViewSettings", "ViewsPageSettings", "build", "build_detect_settings", "build_evaluate_settings",
    "build_export_settings", "build_finetune_settings", "build_settings", "build_shown_recipes", "explain",
    "flat_settings", "image_paths", "is_setting", "load_recipe", "parse_assignments", "read_plain_settings",
    "read_recipe", "read_settings", "read_words", "recipe_names", "section_keys", "setting_keys", "take_settings",
    "to_yaml", "translate_original", "usage", "write_yaml",
]
# fmt: on
