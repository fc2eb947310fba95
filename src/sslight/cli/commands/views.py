"""``sslight views``: what a recipe does to your images, before any training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, columns, say, show
from sslight.config import ViewsPageSettings, build_shown_recipes, image_paths, read_words, take_settings

if TYPE_CHECKING:
    from sslight.report.page import PageResult


def views(words: Words = None, as_json: AsJson = False) -> None:
    """Show crops and views of a few images and say whether they match: a page and numbers.

    A single recipe is shown beside its baseline. Several are compared with the first.
    """
    images, typed = read_words("views", words)
    page = take_settings(typed, ViewsPageSettings)
    recipes = build_shown_recipes(page.recipe, typed)
    from sslight.api.views import show_views_with

    result = show_views_with(image_paths(images[0]), page, recipes)
    show(result, {**result.content, "page": result.page}, _print_result, as_json=as_json)


def _print_result(result: "PageResult") -> None:
    from sslight.report.views.table import footnote, views_table

    recipes = result.content["recipes"]
    names = ["\n".join([*_better(recipe), recipe["name"], *recipe["changes"]]) for recipe in recipes]
    say(columns(("", *names), views_table(recipes)))
    say(f"\n{footnote(result.content)}")
    for recipe, name in zip(recipes, names, strict=True):
        say("\n" + name.replace("\n", " "), style="bold")
        if not recipe["mismatches"]:
            say(f"  no mismatch: {recipe['summary']}")
        for mismatch in recipe["mismatches"]:
            say(f"  {mismatch['sentence']}")
            if mismatch["proposal"]:
                say(f"    try {' '.join(mismatch['proposal'])}")
    if unreadable := result.content["images"]["unreadable"]:
        first = f"{unreadable[0]['location']} ({unreadable[0]['reason']})"
        say(f"\nunreadable, replaced by other images: {len(unreadable)}, such as {first}")
    say(f"\npage  {result.page}")


def _better(recipe: Mapping[str, Any]) -> list[str]:
    return ["better matched:"] if recipe["better"] else []
