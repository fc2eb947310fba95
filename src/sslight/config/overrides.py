"""Settings typed as ``key=value`` or given as keyword arguments, and how they are laid over a recipe."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sslight.config.explain import section_keys, setting_keys, unknown_key
from sslight.config.settings import PretrainSettings

_TEXT_KEYS = {"backbone", "output", "init_from", "data.train", "data.val"}


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["epochs=10", "data.train=/images"]`` as a dictionary from dotted names to values.

    Values are YAML (``null``, ``true``, ``[0.3, 1]``); paths and names are taken as typed.

    Raises:
        ValueError: a word without ``=``, a name that is no setting, or one given twice.
    """
    return flatten(parse_words(assignments))


def parse_words(assignments: Iterable[str]) -> dict[str, Any]:
    """``key=value`` words as a dictionary, whatever the keys. Raises ValueError."""
    values: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not of the form key=value, such as epochs=100.")
        if key in values:
            raise ValueError(f"{key} is given twice: once as {values[key]!r} and once as {text!r}; keep one.")
        values[key] = _parse_value(key, text)
    return values


def _parse_value(key: str, text: str) -> Any:
    if not text:
        raise ValueError(f"{key}= has no value: give one, or null for none.")
    if key in _TEXT_KEYS and text != "null" and not text.startswith("["):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{key}={text} cannot be read as a value: lists need both brackets, as in [0.3, 1].") from None
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 takes 1e-2 for a word
    except ValueError:
        return value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested or dotted settings as one dictionary with dotted names.

    Raises:
        ValueError: a name that is no setting; the nearest ones are listed.
    """
    known = set(setting_keys())
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and section_keys(key):
            flat |= flatten(value, prefix=f"{key}.")
        elif key in known:
            flat[key] = _plain(value)
        elif section_keys(key):
            raise ValueError(f"{key} is a group of settings: set one of {', '.join(section_keys(key))}.")
        else:
            raise unknown_key(key)
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def build_settings(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> PretrainSettings:
    """The settings of a run: a recipe's (flat) values with the user's (flat) values over them.

    Giving ``steps`` takes the place of the recipe's ``epochs`` and the other way round.

    Raises:
        ValueError: a value breaks a rule, or a setting of ``overrides`` would have no effect.
    """
    values = dict(recipe)
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if overrides.get(key) is not None and other not in overrides:
            values[other] = None
    values |= overrides
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    try:
        settings = PretrainSettings.model_validate(nested)
    except ValidationError as error:
        raise ValueError("\n".join(_sentences(error))) from None
    _refuse_settings_without_effect(settings, overrides)
    return settings


def _sentences(error: ValidationError) -> Iterable[str]:
    seen = set()
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        keys = [k for k in setting_keys() if key == k or key.startswith(f"{k}.")]
        name = keys[0] if keys else key
        if name in seen:
            continue  # one sentence for a setting, not one for each type that it could have had
        seen.add(name)
        rule = detail["msg"].removeprefix("Value error, ")
        if not name:
            yield f"{rule}."
        else:
            rule = rule[0].lower() + rule[1:]
            yield f"{name}={detail['input']}: {rule}; `sslight config {name}` explains it."


def _refuse_settings_without_effect(settings: PretrainSettings, overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        for keys, ineffective, reason in _WITHOUT_EFFECT:
            if key in keys and value is not None and ineffective(settings):
                raise ValueError(f"{key}={value} would have no effect: {reason}.")


_Rule = tuple[set[str], Callable[[PretrainSettings], bool], str]
_WITHOUT_EFFECT: list[_Rule] = [
    (
        set(section_keys("dino")),
        lambda s: s.method != "dino",
        "the method is another one; leave it out or set method=dino",
    ),
    (
        set(section_keys("swav")),
        lambda s: s.method != "swav",
        "the method is another one; leave it out or set method=swav",
    ),
    (
        set(section_keys("moco")),
        lambda s: s.method != "moco",
        "the method is another one; leave it out or set method=moco",
    ),
    (
        {"global_pair_weight", "views.local_size", "views.local_scale"},
        lambda s: s.views.num_local == 0,
        "there are no local views; set views.num_local above 0 or leave it out",
    ),
    ({"optim.momentum"}, lambda s: s.optim.name == "adamw", "AdamW has fixed betas; leave it out"),
    (
        {"optim.lars_eta"},
        lambda s: s.optim.name != "lars",
        "only LARS has it; set optim.name=lars or leave it out",
    ),
    (
        {"optim.milestones", "optim.gamma"},
        lambda s: s.optim.schedule != "multistep",
        "only the multi-step schedule has it; set optim.schedule=multistep or leave it out",
    ),
    (
        {"optim.min_lr"},
        lambda s: s.optim.schedule != "cosine",
        "only the cosine schedule has it; set optim.schedule=cosine or leave it out",
    ),
    (
        {"optim.warmup_start"},
        lambda s: s.optim.warmup_epochs == 0,
        "there is no warm-up; set optim.warmup_epochs",
    ),
    (
        {"data.subset_seed"},
        lambda s: not isinstance(s.data.subset, float),
        "data.subset is not a share; set data.subset=0.1 or leave it out",
    ),
    (
        {"probe.knn_k", "probe.knn_temperature", "probe.knn_bank", "probe.every_epochs"},
        lambda s: s.probe.knn is False or (s.probe.knn is None and not s.data.val),
        "no kNN accuracy is measured; give data.val or set probe.knn=true",
    ),
    ({"data.val"}, lambda s: s.probe.knn is False, "probe.knn=false; leave out one of the two"),
    (
        {"dino.warmup_teacher_temp"},
        lambda s: s.dino.warmup_teacher_temp_epochs == 0,
        "the teacher's temperature has no warm-up; set dino.warmup_teacher_temp_epochs",
    ),
    (
        {"swav.queue_start_epoch"},
        lambda s: s.swav.queue_size == 0,
        "there is no queue; set swav.queue_size or leave it out",
    ),
]
