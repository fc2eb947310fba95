"""``sslight config``: what a setting means."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sslight.cli.terminal import say
from sslight.config import (
    DetectSettings,
    EvaluateSettings,
    Explanation,
    ExportSettings,
    build_settings,
    explain,
    section_keys,
    setting_keys,
    to_yaml,
    translate_original,
)
from sslight.config.fields import Section

_OTHER_COMMANDS: dict[str, type[Section]] = {
    "evaluate": EvaluateSettings,
    "detect": DetectSettings,
    "export": ExportSettings,
}


def config(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A setting such as lr, or a group such as views; `evaluate`, `detect` or `export` for "
            "those of these commands; without it, list all.",
            show_default=False,
        ),
    ] = None,
    from_original: Annotated[
        Path | None, typer.Option(help="Print a configuration of the original implementation as a recipe file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Explain a setting: meaning, unit, default, what to try."""
    if from_original is not None:
        _print_translation(from_original.expanduser(), as_json=as_json)
        return
    found = _explanations(key)
    if as_json:
        print(json.dumps([asdict(each) for each in found] if len(found) > 1 else asdict(found[0]), default=str))
    elif len(found) == 1:
        _print_one(found[0])
    else:
        _print_table(found)


def _explanations(key: str | None) -> list[Explanation]:
    """Those of one setting, of a group, or of all."""
    command, _, name = (key or "").partition(".")
    if command in _OTHER_COMMANDS:
        of = _OTHER_COMMANDS[command]
        keys = setting_keys(of) if not name else section_keys(name, of) or [name]
        return [replace(each, key=f"{command}.{each.key}") for each in (explain(name, of) for name in keys)]
    return [explain(each) for each in (setting_keys() if key is None else section_keys(key) or [key])]


def _print_translation(path: Path, *, as_json: bool) -> None:
    translation = translate_original(path)
    settings = build_settings(translation.settings, {})
    if as_json:
        print(json.dumps({"settings": settings.model_dump(mode="json"), "notes": translation.notes}))
        return
    print(f"# {path.name} of the original implementation, as settings of this program")
    for note in translation.notes:
        print(f"# - {note}")
    print(to_yaml(settings), end="")


def _print_one(setting: Explanation) -> None:
    say(setting.key, style="bold")
    say(f"  {setting.meaning}")
    say(f"  unit:    {setting.unit}")
    say(f"  default: {_as_typed(setting.default)}   (a recipe may set another)")
    say(f"  try:     {setting.advice}")


def _print_table(settings: list[Explanation]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "default", "meaning"):
        table.add_column(column, no_wrap=column == "setting")
    for setting in settings:
        table.add_row(setting.key, _as_typed(setting.default), setting.meaning.split(";")[0].split(". ")[0].rstrip("."))
    console = Console()
    console.print(table, markup=False)
    console.print("\n`sslight config KEY` explains one in full; a recipe may set another default.", markup=False)


def _as_typed(value: Any) -> str:
    return json.dumps(value, default=str).strip('"')
