"""``sslight config``: what a setting means."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sslight.config import Explanation, explain, section_keys, setting_keys


def config(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A setting such as lr, or a group such as views; without it, list all.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Explain a setting: meaning, unit, default, what to try."""
    keys = setting_keys() if key is None else section_keys(key) or [key]
    found = [explain(each) for each in keys]
    if as_json:
        print(json.dumps([asdict(each) for each in found] if key is None or section_keys(key) else asdict(found[0])))
    elif len(found) == 1:
        _print_one(found[0])
    else:
        _print_table(found)


def _print_one(setting: Explanation) -> None:
    console = Console(highlight=False)
    console.print(setting.key, style="bold", markup=False)
    console.print(f"  {setting.meaning}", markup=False)
    console.print(f"  unit:    {setting.unit}", markup=False)
    console.print(f"  default: {_as_typed(setting.default)}   (a recipe may set another)", markup=False)
    console.print(f"  try:     {setting.advice}", markup=False)


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
