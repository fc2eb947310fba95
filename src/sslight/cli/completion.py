"""Shell completion: typer completes commands; first words, settings and values come from the table of commands."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import islice

import typer
from pydantic.fields import FieldInfo

from sslight.config import COMMANDS, KINDS, is_setting, recipe_names, section_keys, setting_keys
from sslight.config.explain import fields_of
from sslight.config.schema.evaluate_settings import PROTOCOLS
from sslight.config.schema.fields import choices, leaf_types

_VARIABLE = "_SSLIGHT_COMPLETE"  # typer's
_LISTED = 1000  # entries of a folder to look at


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Words that can replace the one being typed."""
    typed: list[str] = ctx.params.get("words") or []
    name = ctx.command_path.removeprefix("sslight ")
    command = COMMANDS[f"{name} detect" if name == "evaluate" and typed[:1] == ["detect"] else name]
    fields = fields_of(*command.kinds) if command.kinds else {}
    key, equals, text = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in (_values(fields[key], text) if key in fields else [])]
    number = sum(not is_setting(word) for word in typed)
    if number < len(command.first):
        auto = ["auto"] if name == "pretrain" else []
        return auto + _first_words(command.first[number].strip("[]"), incomplete)
    given = {word.partition("=")[0] for word in typed}
    keys = [each for each in fields if each.startswith(incomplete) and each not in given]
    if len(keys) == 1:  # more than one proposal, or shells would add a space
        return [f"{keys[0]}={value}" for value in ("", *(_values(fields[keys[0]], "") or ["..."]))]
    return [f"{each}=" for each in keys] or (_paths(incomplete) if command.first[-1].endswith("...") else [])


def _first_words(kind: str, incomplete: str) -> list[str]:
    match kind:
        case "RECIPE":
            return [*recipe_names(), *_paths(incomplete)]
        case "NAME":
            return recipe_names()
        case "PROTOCOL":
            return [*PROTOCOLS, "detect"]
        case "KEY":
            own = [key for key in setting_keys() if "." in incomplete or "." not in key]
            groups = {key.partition(".")[0] for key in setting_keys() if section_keys(key.partition(".")[0])}
            of, _, _ = incomplete.partition(".")
            others = [f"{of}.{key}" for key in setting_keys(KINDS[of])] if of in KINDS else []
            return sorted({*own, *groups, *others, *KINDS, "pretrain"})
        case _:
            return _paths(incomplete)


def _values(field: FieldInfo, text: str) -> list[str]:
    """The names that a setting accepts, or paths."""
    if names := choices(field.annotation):
        return names
    return _paths(text) if leaf_types(field.annotation) & {str, os.PathLike} else []


def _paths(incomplete: str) -> list[str]:
    """Files and folders. If only one folder fits, also its content. Bash lists paths itself."""
    if os.environ.get(_VARIABLE) == "complete_bash":
        return []
    folder, found = os.path.dirname(incomplete), []  # noqa: PTH120 - keeps the form that is typed
    with suppress(OSError), os.scandir(os.path.expanduser(folder) or ".") as entries:  # noqa: PTH111
        for entry in islice(entries, _LISTED):
            path = os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")  # noqa: PTH118
            if path.startswith(incomplete) and not entry.name.startswith("."):
                found.append(path)
    only_folder = len(found) == 1 and found[0].endswith("/") and found[0] != incomplete
    return sorted(found) + (_paths(found[0]) if only_folder else [])


@contextmanager
def whole_words() -> Iterator[None]:
    """Join words that bash has split at ``=`` and ``:``; print only the part of a proposal that bash replaces."""
    if os.environ.get(_VARIABLE) != "complete_bash":
        yield
        return
    typed, number = os.environ.get("COMP_WORDS", ""), int(os.environ.get("COMP_CWORD", 0))
    parts = [*(typed.split("\n") if "\n" in typed else typed.split()), ""][: number + 1]
    words = re.sub(r"\n?([=:]+)\n?", r"\1", "\n".join(parts)).split("\n")
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    kept = 0 if re.fullmatch("[=:]+", parts[-1]) else len(parts[-1])
    before = words[-1][: len(words[-1]) - kept]
    proposals = io.StringIO()
    try:
        with redirect_stdout(proposals):
            yield
    finally:
        print("\n".join(line.removeprefix(before) for line in proposals.getvalue().splitlines()))
