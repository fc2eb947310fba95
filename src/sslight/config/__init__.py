"""Typed settings, recipes and overrides: the only room that knows YAML."""

from sslight.config.detect_settings import DetectSettings
from sslight.config.evaluate_settings import EvaluateSettings
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
from sslight.config.pack_settings import PackSettings, build_pack_settings
from sslight.config.plain_yaml import flat_settings
from sslight.config.predict_settings import EmbedSettings, PredictSettings, build_predict_settings
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
from sslight.config.report_settings import ReportSettings, build_report
from sslight.config.training_settings import CheckpointSettings, OptimSettings
from sslight.config.views_settings import (
    ShownRecipe,
    ViewsPageSettings,
    build_shown_recipes,
    build_views_page,
)

__all__ = [
    "CheckpointSettings", "DetectSettings", "EmbedSettings", "EvaluateSettings", "Explanation", "ExportSettings",
    "FinetuneSettings", "OptimSettings", "PackSettings", "PredictSettings", "PretrainSettings", "Recipe",
    "ReportSettings", "ShownRecipe", "ViewSettings", "ViewsPageSettings", "build", "build_detect_settings",
    "build_evaluate_settings", "build_export_settings", "build_finetune_settings", "build_pack_settings",
    "build_predict_settings", "build_report", "build_settings", "build_shown_recipes", "build_views_page", "explain",
    "flat_settings", "load_recipe", "parse_assignments", "read_plain_settings", "read_recipe", "read_settings",
    "recipe_names", "section_keys", "setting_keys", "to_yaml", "translate_original",
]  # fmt: skip
