"""``sslight recipes``: what recipes there are, and what one holds."""

import json
from typing import Annotated

import typer
from rich.table import Table

from sslight.cli.terminal import say
from sslight.config import Recipe, read_recipe, recipe_names

_COMPARED = {
    "method": "method",
    "backbone": "backbone",
    "optim.name": "optimiser",
    "lr": "lr / 256",
    "views.global_size": "global px",
    "views.local_size": "local px",
    "views.num_local": "locals",
    "views.global_scale": "global scale",
    "views.local_scale": "local scale",
    "global_pair_weight": "pair weight",
}


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe; without it, list all.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """List the recipes, or print one."""
    if name is not None:
        recipe = read_recipe(name)
        as_data = {"name": name, "inherits": recipe.inherits, "values": recipe.values}
        print(json.dumps(as_data) if as_json else recipe.text)
        return
    found = [read_recipe(each) for each in recipe_names()]
    if as_json:
        keys = ("name", "inherits", "header", "changes")
        print(json.dumps([{key: getattr(recipe, key) for key in keys} for recipe in found]))
        return
    for recipe in found:
        say(recipe.name, style="bold")
        for line in recipe.header:
            say(f"  {line}")
        if recipe.inherits is not None:
            changes = " · ".join(f"{key}={json.dumps(value)}" for key, value in recipe.changes.items())
            say(f"  differs:  from {recipe.inherits} in {changes}")
    say()
    say(_differences(found))
    say("\n`sslight recipes NAME` prints one; `sslight pretrain NAME key=value ...` runs it.")


def _differences(found: list[Recipe]) -> Table:
    """The settings in which recipes differ, a row each."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", *_COMPARED.values()):
        table.add_column(column, no_wrap=True)
    for recipe in found:
        values = (recipe.values.get(key) for key in _COMPARED)
        table.add_row(recipe.name, *("mean" if v is None else json.dumps(v).strip('"') for v in values))
    return table
