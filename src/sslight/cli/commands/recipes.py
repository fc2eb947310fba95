"""``sslight recipes``: list the recipes, or print one."""

import json

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, as_typed, columns, say, say_json
from sslight.config import read_recipe, read_words, recipe_names

_COMPARED = {
    "method": "method",
    "backbone": "backbone",
    "optim.name": "optimizer",
    "lr": "lr / 256",
    "views.global_size": "global px",
    "views.local_size": "local px",
    "views.num_local": "locals",
    "views.global_scale": "global scale",
    "views.local_scale": "local scale",
    "global_pair_weight": "pair weight",
}


def recipes(words: Words = None, as_json: AsJson = False) -> None:
    """List the recipes, or print one."""
    for name in read_words("recipes", words)[0]:
        recipe = read_recipe(name)
        as_data = {"name": name, "inherits": recipe.inherits, "values": recipe.values}
        say_json(as_data) if as_json else print(recipe.text)
        return
    found = [read_recipe(each) for each in recipe_names()]
    if as_json:
        keys = ("name", "inherits", "header", "changes")
        say_json([{key: getattr(recipe, key) for key in keys} for recipe in found])
        return
    for recipe in found:
        say(recipe.name, style="bold")
        for line in recipe.header:
            say(f"  {line}")
        if recipe.inherits is not None:
            changes = " · ".join(f"{key}={json.dumps(value)}" for key, value in recipe.changes.items())
            say(f"  differs:  from {recipe.inherits} in {changes}")
    rows = [(recipe.name, *(as_typed(recipe.values.get(key), null="mean") for key in _COMPARED)) for recipe in found]
    say()
    say(columns(("recipe", *_COMPARED.values()), rows, no_wrap=True))
    say("\n`sslight recipes NAME` prints one; `sslight pretrain NAME key=value ...` runs it.")
