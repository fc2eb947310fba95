"""YAML from outside: small, plain, and refused with a sentence otherwise."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sslight.reading import near_name, read_ordinary

LARGEST_FILE = 2**20
"""Bytes of a file of settings at most; real ones have a few thousand."""

LONGEST_SHOWN = 200
"""Characters of a wrong value that a message repeats."""

_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the words of YAML 1.2, and without aliases, through which a few lines can stand for
    billions of values.

    In YAML 1.1, PyYAML's, ``yes`` is true, ``0123`` is 83, ``1:30`` is 90, ``1e-3`` a word, and ``2001-01-01`` a date.
    """

    yaml_implicit_resolvers: dict[str | None, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), and aliases are not read: write the value out")
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also puts words into quotes that are numbers in YAML 1.2."""


_TAG, _DIGITS = "tag:yaml.org,2002:", list("-+.0123456789")
_PlainLoader.add_implicit_resolver(f"{_TAG}bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_PlainLoader.add_implicit_resolver(f"{_TAG}null", re.compile("(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_PlainLoader.add_implicit_resolver(f"{_TAG}int", re.compile("[-+]?(0|[1-9][0-9]*)$"), _DIGITS)
for _kind in (_PlainLoader, _PlainDumper):
    _kind.add_implicit_resolver(f"{_TAG}float", _FLOAT, _DIGITS)


def parse_yaml(text: str) -> Any:
    """Plain data of a YAML text. Raises ValueError whose text is the reason alone, in one line."""
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # PyYAML's constructors raise nearly every type for values like !!int "" or 2001-99-99
        raise ValueError(f"it holds a value that cannot be: {' '.join(str(error).split())}") from None


def write_yaml(content: Any) -> str:
    """Plain data as a YAML text, which means the same in YAML 1.1 and 1.2."""
    return yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def read_text(path: Path) -> str:
    """The text of a file of settings. Raises ValueError whose text is the reason alone."""
    try:
        return read_ordinary(path, largest=LARGEST_FILE).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(error.strerror or "unknown error") from None
    except UnicodeDecodeError:
        raise ValueError("not a text file") from None


def read_named(path: Path, kind: str) -> str:
    """As :func:`read_text`; the ValueError is a sentence about a file of this kind."""
    try:
        return read_text(path)
    except ValueError as error:
        raise ValueError(f"{kind} {path} cannot be read ({error}); check the path{near_name(path)}") from None


def parse_settings(text: str, source: str) -> dict[str, Any]:
    """The settings of a YAML text. Raises ValueError with a sentence about their source."""
    try:
        content = parse_yaml(text) or {}
    except ValueError as error:
        raise ValueError(f"{source} is not valid YAML: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{source} holds no settings: write lines of the form `name: value`.")
    return content


def flat_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in groups as one dictionary with dotted names; nothing is checked."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {str(key): value}
    return flat


def shown(value: object) -> str:
    """A value of the user's in one line that is not too long for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
