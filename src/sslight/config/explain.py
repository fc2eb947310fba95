"""What each setting means, read from their docstrings, and the nearest names to a typo."""

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sslight.config.plain_yaml import shown
from sslight.config.schema.fields import Section
from sslight.config.schema.pretrain_settings import PretrainSettings

RENAMED = {
    "views.blur_radius": "views.blur_sigma",
    "views.grey_prob": "views.grayscale_prob",
    "views.solarise_prob": "views.solarize_prob",
    "checkpoint_every_minutes": "checkpoint.every_minutes",
    "checkpoint_every_steps": "checkpoint.every_steps",
    "device": "devices",
    "probe.val": "data.val",
    "devices=cuda": "devices=gpu",
    "input=normalised": "input=normalized",
}
"""Settings (and ``key=value``) of earlier versions, and their names now."""

_ELSEWHERE = {
    "learning_rate": "lr", "num_workers": "workers", "gpus": "devices", "arch": "backbone",
    "model": "backbone", "output_dir": "output", "out": "output", "amp": "precision", "wd": "weight_decay",
    "save_dir": "output", "pretrained": "init_from", "weights": "init_from", "resume_from": "resume",
}  # fmt: skip
"""What settings are called in other programs."""

_DOCSTRING = re.compile(r"(?P<meaning>.*?)\s*Unit: (?P<unit>.*?)\.\s*Try: (?P<advice>.*)", re.DOTALL)
_FEW = 8


@dataclass(frozen=True)
class Explanation:
    """One setting in words; ``default`` is that of the settings, which a recipe may replace."""

    key: str
    meaning: str
    unit: str
    default: Any
    advice: str


@cache
def fields_of(*kinds: type[Section]) -> dict[str, FieldInfo]:
    """The fields of all settings by their dotted names, in the order in which they are declared.

    Of a name that several ``kinds`` have, the field is the first one's; without any, they are those of pre-training.
    """
    fields: dict[str, FieldInfo] = {}
    for of in kinds or (PretrainSettings,):
        for name, field in of.model_fields.items():
            section = field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                fields |= {f"{name}.{key}": value for key, value in section.model_fields.items()}
            else:
                fields.setdefault(name, field)
    return fields


def setting_keys(*kinds: type[Section]) -> list[str]:
    """Dotted names of all settings, in the order in which they are declared."""
    return list(fields_of(*kinds))


def section_keys(section: str, *kinds: type[Section]) -> list[str]:
    """Dotted names of the settings in one section such as ``views``; empty if there is no such section."""
    return [key for key in fields_of(*kinds) if key.startswith(f"{section}.")]


def unknown_key(key: str, *kinds: type[Section]) -> ValueError:
    """The error for a name that is no setting; it gives the name of today, or lists the nearest valid ones."""
    keys = setting_keys(*kinds)
    if RENAMED.get(key) in keys:
        return ValueError(f"{key} is now called {RENAMED[key]}: write that name.")
    key = shown(key)
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(keys)}
    close = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
    close = [*(name for name in (_ELSEWHERE.get(key), key.partition(".")[0]) if name in keys), *close]
    last_parts = difflib.get_close_matches(key.rpartition(".")[2], by_last_part, n=3, cutoff=0.75)
    nearest = list(dict.fromkeys([*close, *(by_last_part[part] for part in last_parts)]))[:3]
    lister = (kinds or (PretrainSettings,))[-1].explained_by.format(key="").rstrip(" .")
    hint = f"there are {', '.join(keys)}." if len(keys) < _FEW else f"`{lister}` lists all settings."
    if nearest:
        hint = f"did you mean {' or '.join(nearest)}?"
    return ValueError(f"{key} is not a setting: {hint}")


def explain(key: str, *kinds: type[Section]) -> Explanation:
    """Meaning, unit, default and advice for a setting. Raises ValueError, with the nearest names, if there is none."""
    field = fields_of(*kinds).get(key)
    if field is None:
        raise unknown_key(key, *kinds)
    parts = _DOCSTRING.fullmatch(" ".join((field.description or "").split()))
    assert parts, f"the docstring of {key} lacks its Unit or Try line"
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return Explanation(key, parts["meaning"], parts["unit"], default, parts["advice"].rstrip("."))
