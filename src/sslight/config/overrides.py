"""Settings typed as ``key=value`` or given as keyword arguments, and how they are laid over a recipe."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from pydantic import ValidationError

from sslight.config.explain import RENAMED, explain, fields_of, section_keys, setting_keys, unknown_key
from sslight.config.plain_yaml import parse_yaml, shown
from sslight.config.schema.fields import Section, choices, leaf_types
from sslight.config.schema.pretrain_settings import PretrainSettings

_S = TypeVar("_S", bound=Section)


def parse_assignments(assignments: Iterable[str], *kinds: type[Section]) -> dict[str, Any]:
    """``["epochs=10", "data.train=/images"]`` as a dictionary from dotted names to values.

    Values are YAML (``null``, ``true``, ``[0.3, 1]``); paths and names are taken as typed. Raises ValueError for a
    word without ``=``, a name that is no setting of these kinds, or one given twice.
    """
    words = list(assignments)
    values: dict[str, Any] = {}
    for number, word in enumerate(words):
        key, equals, text = word.partition("=")
        if not (key and equals and text):
            raise ValueError(_mistyped(words, number, kinds))
        if key in values:
            first, second = shown(repr(values[key])), shown(repr(text))
            raise ValueError(f"{shown(key)} is given twice: once as {first} and once as {second}; keep one.")
        values[key] = _parse_value(key, text, kinds)
    return flatten(values, *kinds)


def _mistyped(words: Sequence[str], number: int, kinds: Sequence[type[Section]]) -> str:
    """What to type instead of a word that is not ``key=value``, judged by its neighbors."""
    key, equals, _ = words[number].partition("=")
    following = [word for word in words[number + 1 : number + 3] if "=" not in word.strip("=")]
    value = next((word.strip("=") for word in following if word != "="), "")
    key = key.removesuffix(":")
    if value and key in fields_of(*kinds):
        return f"{key} and its value are apart: write {key}={shown(value)}, without spaces."
    if equals and key:
        field = fields_of(*kinds).get(key)
        can_be_none = field is not None and type(None) in leaf_types(field.annotation)
        return f"{shown(key)}= has no value: give one{', or null for none' if can_be_none else ''}."
    keys, word = setting_keys(*kinds), words[number]
    name, colon, value = word.partition(":")
    if colon and name in keys:
        return f"{shown(word)} is not of the form key=value: write {name}={shown(value)}."
    hint = f"such as {'epochs=100' if 'epochs' in keys else f'{keys[0]}=...'}."
    images = next((key for key in ("data.train", "data.check", "data") if key in keys), None)
    if number and "=" in words[number - 1]:
        hint = f"such as epochs=100; a value with spaces needs quotes, as in '{shown(f'{words[number - 1]} {word}')}'."
    elif not equals and images and os.path.exists(word):  # noqa: PTH110 - never raises
        hint = f"did you mean {quote(f'{images}={shown(word)}')}?"
    elif not equals and (missing := next((key for key in ("recipe", "output") if key in keys), None)):
        hint = f"did you mean {missing}={shown(word)}?"
    return f"{shown(repr(word))} is not of the form key=value: {hint}"


def _parse_value(key: str, text: str, kinds: Sequence[type[Section]]) -> Any:
    field = fields_of(*kinds).get(key)
    types = set() if field is None else leaf_types(field.annotation)
    is_text = bool(types & {str, Path})
    is_list = text.startswith("[") and text.endswith("]") and not os.path.exists(text)  # noqa: PTH110 - never raises
    if is_text and not types & {int, float, bool} and text != "null" and not is_list:
        return text
    try:
        value = parse_yaml(text)
    except ValueError:
        if is_text:
            return text
        raise ValueError(
            f"{shown(key)}={shown(text)} cannot be read as a value: lists need both brackets, and quotes in a shell, "
            f"as in '{shown(key)}=[0.3, 1]'."
        ) from None
    return text if is_text and isinstance(value, str) and text[0] not in "'\"" else value


def flatten(values: Mapping[str, Any], *kinds: type[Section], prefix: str = "") -> dict[str, Any]:
    """Nested or dotted settings as one dictionary with dotted names. Raises ValueError for one that is no setting."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        group = section_keys(key, *kinds)
        if isinstance(value, Mapping) and group:
            flat |= flatten(value, *kinds, prefix=f"{key}.")
        elif group:
            raise ValueError(f"{key} is a group of settings: set one of {', '.join(group)}.")
        elif key not in fields_of(*kinds):
            raise unknown_key(key, *kinds)
        else:
            flat[key] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def build_settings(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> PretrainSettings:
    """The settings of a run: a recipe's (flat) values with the user's (flat) values over them.

    Giving ``steps`` takes the place of the recipe's ``epochs`` and the other way round. Raises ValueError as ``build``.
    """
    values = dict(recipe)
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if overrides.get(key) is not None and other not in overrides:
            values[other] = None
    return build(PretrainSettings, overrides, **values)


def build(of: type[_S], overrides: Mapping[str, Any] | None, /, **values: Any) -> _S:
    """Settings of one kind: ``values`` (flat), and over them what the user gives (dotted or nested).

    Raises:
        ValueError: a value breaks a rule, or a setting of ``overrides`` would have no effect.
    """
    given = flatten(overrides or {}, of)
    settings = validated(of, values | given)
    for names, ineffective, reason in settings.without_effect():
        for key, value in given.items():
            named = any(key == name or (name.endswith(".") and key.startswith(name)) for name in names.split())
            if named and ineffective and value is not None:
                raise ValueError(f"{key}={shown(value)} would have no effect: {reason}; change that, or leave it out.")
    return settings


def validated(of: type[_S], flat: Mapping[str, Any]) -> _S:
    """Settings of one kind from dotted names. Raises ValueError with a sentence for each wrong value."""
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
        raise ValueError("\n".join(_sentences(error, of))) from None


def _sentences(error: ValidationError, of: type[Section]) -> Iterable[str]:
    seen = set()
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        name = next((k for k in setting_keys(of) if key == k or key.startswith(f"{k}.")), key)
        if name in seen:
            continue  # one sentence for a setting, not one for each type that it could have had
        seen.add(name)
        rule = detail["msg"].removeprefix("Value error, ")
        if not name:
            yield f"{rule}."
            continue
        field, value = fields_of(of).get(name), shown(detail["input"])
        if field is not None and field.is_required() and detail["type"] == "missing":
            example = re.split("[,;]", explain(name, of).advice)[0]
            where = of.explained_by.format(key=name)
            yield f"{name} is not set: give one, such as {name}={example}; `{where}` explains it."
            continue
        if (
            field is not None
            and (detail["type"] in _NOT_THE_LIST or _is_unbracketed(detail))
            and not field.is_required()
        ):
            example = f"[{value}]" if "," in value and value[0] not in "[(" else json.dumps(field.default or [60, 80])
            rule = f"must be a list such as {example}, with brackets, and in a shell with quotes: '{name}={example}'"
        elif f"{name}={value}" in RENAMED:
            rule = f"is now written {RENAMED[f'{name}={value}']}"
        elif field is not None and (near := get_close_matches(value, choices(field.annotation), n=1)):
            rule = f"{rule}; did you mean {near[0]}"
        rule = rule[0].lower() + rule[1:]
        yield f"{name}={value}: {rule}; `{of.explained_by.format(key=name)}` explains it."


def _is_unbracketed(detail: Any) -> bool:
    """Whether several names were typed with commas alone, as one name of a list."""
    return detail["type"] == "literal_error" and len(detail["loc"]) > 1 and "," in str(detail["input"])


_NOT_THE_LIST = ("tuple_type", "list_type", "too_long", "too_short", "missing")
