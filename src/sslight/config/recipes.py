"""Recipes: one YAML file is one experiment; a recipe may inherit another one and change some settings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from sslight.config.overrides import build_settings, flatten, validated
from sslight.config.plain_yaml import (
    flat_settings,
    parse_settings,
    parse_yaml,
    read_named,
    read_text,
    shown,
    write_yaml,
)
from sslight.config.schema.fields import Section, expanded
from sslight.config.schema.pretrain_settings import PretrainSettings
from sslight.reading import near_name

_S = TypeVar("_S", bound=Section)
_RECIPES = files("sslight") / "recipes"


@dataclass(frozen=True)
class Recipe:
    """A recipe as written: its comment header, its own changes and the whole flat settings."""

    name: str
    text: str
    header: list[str]
    inherits: str | None
    changes: dict[str, Any]
    values: dict[str, Any]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the program."""
    return sorted(name.removesuffix(".yaml") for path in _RECIPES.iterdir() if (name := path.name).endswith(".yaml"))


def read_recipe(name_or_path: str) -> Recipe:
    """A recipe by name, or by the path of a YAML file (which may inherit one by name).

    Raises ValueError if there is none (the nearest names are listed), it cannot be read, has an unknown setting, or
    inherits itself.
    """
    return _read(name_or_path, heirs=())


def _read(name_or_path: str, heirs: tuple[str, ...]) -> Recipe:
    if name_or_path in heirs:
        raise ValueError(f"recipe {name_or_path} inherits itself: {' → '.join((*heirs, name_or_path))}.")
    text = _recipe_text(name_or_path)
    content = parse_settings(text, f"recipe {name_or_path}")
    parent = content.pop("inherits", None)
    try:
        changes = flatten(content)
    except ValueError as error:
        raise ValueError(f"recipe {name_or_path}: {error}") from None
    inherited = _read(str(parent), (*heirs, name_or_path)).values if parent is not None else {}
    comments = takewhile(lambda line: line.startswith("#"), text.splitlines())
    header = [line.removeprefix("#").strip() for line in comments]
    return Recipe(name_or_path, text, header, parent, changes, inherited | changes)


def _recipe_text(name_or_path: str) -> str:
    names = recipe_names()
    if name_or_path in names:
        return (_RECIPES / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(expanded(name_or_path))
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        if not (path / "config.yaml").is_file():
            raise ValueError(
                f"{path} is a folder without a run (config.yaml) and not a recipe: if it holds images, write "
                f"sslight pretrain auto {quote(f'data.train={path}')} output=runs/first."
            )
        path = path / "config.yaml"
    if path.suffix in {".yaml", ".yml"} or os.path.isfile(path):  # noqa: PTH113 - never raises
        return read_named(path, "recipe file")
    if "/" in name_or_path:
        raise ValueError(f"there is no recipe and no run {shown(name_or_path)}: check the path{near_name(path)}")
    close = get_close_matches(name_or_path.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"the recipes are {', '.join(names)}."
    raise ValueError(f"there is no recipe {shown(repr(name_or_path))}: {hint}")


def load_recipe(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> PretrainSettings:
    """The settings of a recipe, by name or by the path of a YAML file, with the user's changes (dotted or nested).

    The output of a run folder is that folder, wherever it was when the run began. Raises ValueError with a sentence for
    whatever is wrong with the recipe or the changes.
    """
    values = read_recipe(name_or_path).values
    if name_or_path not in recipe_names() and os.path.isdir(folder := expanded(name_or_path)):  # noqa: PTH112
        values = values | {"output": folder}
    return build_settings(values, flatten(overrides or {}))


def read_settings(path: Path, of: type[_S]) -> _S:
    """The settings of a run from the file that :func:`to_yaml` wrote.

    Raises ValueError if it cannot be read, or holds settings of another kind.
    """
    try:
        return validated(of, flatten(read_plain_settings(path), of))
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{path} does not hold the settings of such a run ({reason}): choose another folder."
        ) from None


def to_yaml(settings: Section) -> str:
    """The whole settings as YAML that ``load_recipe`` or ``read_settings`` reads back to equal settings."""
    return write_yaml(settings.model_dump(mode="json"))


def read_plain_settings(path: Path) -> dict[str, Any]:
    """What a run's ``config.yaml`` says, dotted names to values, whichever version wrote it; nothing is checked.

    Raises ValueError, whose text is the reason alone, if it cannot be read or is no mapping.
    """
    content = parse_yaml(read_text(path))
    if not isinstance(content, dict):
        raise ValueError("it holds no settings")
    return flat_settings(content)
