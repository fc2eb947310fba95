"""YAML from outside: small, plain, and refused with a sentence otherwise."""

from pathlib import Path
from typing import Any

import yaml

from sslight.reading import read_ordinary

LARGEST_FILE = 2**20
"""Bytes of a file of settings at most; real ones have a few thousand."""

LONGEST_SHOWN = 200
"""Characters of a wrong value that a message repeats."""


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, through which a few lines can stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), and aliases are not read: write the value out")
        return super().compose_node(parent, index)


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


def read_text(path: Path) -> str:
    """The text of a file of settings. Raises ValueError whose text is the reason alone."""
    try:
        return read_ordinary(path, largest=LARGEST_FILE).decode("utf-8")
    except OSError as error:
        raise ValueError(error.strerror or "unknown error") from None
    except UnicodeDecodeError:
        raise ValueError("not a text file") from None


def shown(value: object) -> str:
    """A value of the user's in one line that is not too long for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
