"""Settings typed as ``key=value`` or given as keyword arguments, and how they are laid over a recipe."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sslight.config.detect_settings import DetectSettings
from sslight.config.evaluate_settings import EvaluateSettings
from sslight.config.explain import section_keys, setting_keys, unknown_key
from sslight.config.export_settings import ExportSettings
from sslight.config.fields import Section
from sslight.config.plain_yaml import parse_yaml, shown
from sslight.config.pretrain_settings import PretrainSettings

_TEXT_KEYS = {"backbone", "output", "init_from", "data.train", "data.val", "cache", "data"} | {
    "data.subset",
    "data.labels",
    "data.val_labels",
    "data.labels_column",
    "train_split",
    "val_split",
    "classifier",
    "data.check",
    "data.calibration",
}

_S = TypeVar("_S", bound=Section)


def parse_assignments(assignments: Iterable[str], of: type[Section] = PretrainSettings) -> dict[str, Any]:
    """``["epochs=10", "data.train=/images"]`` as a dictionary from dotted names to values.

    Values are YAML (``null``, ``true``, ``[0.3, 1]``); paths and names are taken as typed.

    Raises:
        ValueError: a word without ``=``, a name that is no setting, or one given twice.
    """
    return flatten(parse_words(assignments), of=of)


def parse_words(assignments: Iterable[str]) -> dict[str, Any]:
    """``key=value`` words as a dictionary, whatever the keys. Raises ValueError."""
    values: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{shown(repr(word))} is not of the form key=value, such as epochs=100.")
        if key in values:
            first, second = shown(repr(values[key])), shown(repr(text))
            raise ValueError(f"{shown(key)} is given twice: once as {first} and once as {second}; keep one.")
        values[key] = _parse_value(key, text)
    return values


def _parse_value(key: str, text: str) -> Any:
    if not text:
        raise ValueError(f"{shown(key)}= has no value: give one, or null for none.")
    # A path may hold brackets or a #: what is there, or is no list of YAML from end to end, is taken as typed.
    if key in _TEXT_KEYS and text != "null" and not (text.startswith("[") and text.endswith("]") and not _exists(text)):
        return _share(text) if key == "data.subset" else text
    try:
        value = parse_yaml(text)
    except ValueError:
        raise ValueError(
            f"{shown(key)}={shown(text)} cannot be read as a value: lists need both brackets, as in [0.3, 1]."
        ) from None
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 takes 1e-2 for a word
    except ValueError:
        return value


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than a name may be
        return False


def _share(text: str) -> str | float:
    """What data.subset means: a share, or the name of a list as typed, though it may look like a number."""
    try:
        return text if _exists(text) else float(text)
    except ValueError:
        return text


def flatten(values: Mapping[str, Any], prefix: str = "", of: type[Section] = PretrainSettings) -> dict[str, Any]:
    """Nested or dotted settings as one dictionary with dotted names.

    Raises:
        ValueError: a name that is no setting; the nearest ones are listed.
    """
    known = set(setting_keys(of))
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and section_keys(key, of):
            flat |= flatten(value, prefix=f"{key}.", of=of)
        elif key in known:
            flat[key] = _plain(value)
        elif section_keys(key, of):
            raise ValueError(f"{key} is a group of settings: set one of {', '.join(section_keys(key, of))}.")
        else:
            raise unknown_key(key, of)
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
    settings = _validated(PretrainSettings, values, "sslight config ")
    _refuse_settings_without_effect(settings, overrides, _WITHOUT_EFFECT)
    return settings


def build_evaluate_settings(
    protocol: str, checkpoint: str | Path, overrides: Mapping[str, Any] | None = None
) -> EvaluateSettings:
    """The settings of an evaluation from what the user gives (dotted or nested).

    Raises:
        ValueError: a value breaks a rule, or a setting would have no effect.
    """
    flat = flatten(overrides or {}, of=EvaluateSettings)
    values = flat | {"protocol": protocol, "checkpoint": str(checkpoint)}
    settings = _validated(EvaluateSettings, values, "sslight config evaluate.")
    _refuse_settings_without_effect(settings, flat, _WITHOUT_EFFECT_IN_EVALUATION)
    return settings


def build_detect_settings(checkpoint: str | Path, overrides: Mapping[str, Any] | None = None) -> DetectSettings:
    """The settings of detection from what the user gives.

    Raises:
        ValueError: a value breaks a rule, or a setting would have no effect.
    """
    flat = flatten(overrides or {}, of=DetectSettings)
    settings = _validated(DetectSettings, flat | {"checkpoint": str(checkpoint)}, "sslight config detect.")
    _refuse_settings_without_effect(settings, flat, _WITHOUT_EFFECT_IN_DETECTION)
    return settings


def build_export_settings(checkpoint: str | Path, overrides: Mapping[str, Any] | None = None) -> ExportSettings:
    """The settings of an export from what the user gives.

    Raises:
        ValueError: a value breaks a rule, or a setting would have no effect.
    """
    flat = flatten(overrides or {}, of=ExportSettings)
    settings = _validated(ExportSettings, flat | {"checkpoint": str(checkpoint)}, "sslight config export.")
    _refuse_settings_without_effect(settings, flat, _WITHOUT_EFFECT_IN_EXPORT)
    return settings


def _validated(of: type[_S], flat: Mapping[str, Any], explained_by: str) -> _S:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    try:
        return of.model_validate(nested)
    except ValidationError as error:
        raise ValueError("\n".join(_sentences(error, of, explained_by))) from None


def _sentences(error: ValidationError, of: type[Section], explained_by: str) -> Iterable[str]:
    seen = set()
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        keys = [k for k in setting_keys(of) if key == k or key.startswith(f"{k}.")]
        name = keys[0] if keys else key
        if name in seen:
            continue  # one sentence for a setting, not one for each type that it could have had
        seen.add(name)
        rule = detail["msg"].removeprefix("Value error, ")
        if not name:
            yield f"{rule}."
        else:
            rule = rule[0].lower() + rule[1:]
            yield f"{name}={shown(detail['input'])}: {rule}; `{explained_by}{name}` explains it."


def _refuse_settings_without_effect(settings: _S, overrides: Mapping[str, Any], rules: "list[_Rule[_S]]") -> None:
    for key, value in overrides.items():
        for keys, ineffective, reason in rules:
            if key in keys and value is not None and ineffective(settings):
                raise ValueError(f"{key}={shown(value)} would have no effect: {reason}.")


_Rule = tuple[set[str], Callable[[_S], bool], str]
_WITHOUT_EFFECT: list[_Rule[PretrainSettings]] = [
    (
        {"data.val_labels"},
        lambda s: not s.data.val,
        "there is no data.val; set it or leave this out",
    ),
    (
        {"data.labels_column"},
        lambda s: s.data.labels is None and s.data.val_labels is None,
        "there is no table of labels; set data.labels or leave it out",
    ),
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
    ({"init"}, lambda s: s.init_from is not None, "the weights are those of init_from; leave out one of the two"),
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

_WITHOUT_EFFECT_IN_EVALUATION: list[_Rule[EvaluateSettings]] = [
    (
        set(section_keys("knn", EvaluateSettings)),
        lambda s: s.protocol != "knn",
        "the protocol is another one; leave it out",
    ),
    (
        set(section_keys("linear", EvaluateSettings)),
        lambda s: s.protocol != "linear",
        "the protocol is another one; leave it out",
    ),
    (
        set(section_keys("semi", EvaluateSettings)),
        lambda s: s.protocol != "semi",
        "the protocol is another one; leave it out",
    ),
    (
        {"linear.epochs", "linear.batch_size", "linear.optimizer", "linear.lr", "linear.min_lr"},
        lambda s: s.linear.mode == "fast",
        "logistic regression has no such setting; set linear.mode=exact or leave it out",
    ),
    (
        {"linear.held_out_share"},
        lambda s: s.linear.lr is not None and len(s.linear.lr) == 1,
        "there is one learning rate only and nothing to choose; leave it out",
    ),
    ({"cache"}, lambda s: s.protocol == "semi", "no features are kept; leave it out"),
    (
        {"network"},
        lambda s: s.checkpoint.startswith("timm:"),
        "a timm model is one network; leave it out",
    ),
    (
        {"data.subset_seed"},
        lambda s: not isinstance(s.data.subset, float),
        "data.subset is not a share; set data.subset=0.1 or leave it out",
    ),
]

_WITHOUT_EFFECT_IN_DETECTION: list[_Rule[DetectSettings]] = [
    ({"schedule"}, lambda s: s.steps is not None, "steps gives the length; leave out one of the two"),
    ({"network"}, lambda s: s.checkpoint.startswith("timm:"), "a timm model is one network; leave it out"),
]

_WITHOUT_EFFECT_IN_EXPORT: list[_Rule[ExportSettings]] = [
    (
        {"data.calibration", *section_keys("int8", ExportSettings)},
        lambda s: "onnx-int8" not in s.format,
        "nothing is quantised; add onnx-int8 to format or leave it out",
    ),
    (
        {"input"},
        lambda s: not any(form.startswith(("onnx", "executorch")) for form in s.format),
        "files of weights have no input; leave it out",
    ),
    (
        {"int8.percentile"},
        lambda s: s.int8.method != "percentile",
        "only int8.method=percentile has it; leave it out",
    ),
]
