"""``sslight select``: which images to label."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, facts, show
from sslight.config import SelectSettings, read_words, take_settings


def select(words: Words = None, as_json: AsJson = False) -> None:
    """Choose images to label: writes a table to fill in, most useful images first, and a page that shows them.

    The same command continues after an interruption.
    """
    (model, *images), typed = read_words("select", words)
    settings = take_settings(typed, SelectSettings)
    from sslight.api.select import select as api

    found = api(images, model, **settings.model_dump())
    num, duplicates = len(found.names), sum(map(len, found.duplicates))
    why = f" ({settings.num:,} wanted: all others have labels, are near-duplicates or cannot be read)"
    fewer = why if num < settings.num else ""
    rows = [
        ("images", f"{found.num_images:,}"),
        ("to label", f"{num:,}{fewer}, which represent {sum(found.represents):,} images"),
        (
            "left out",
            f"{duplicates:,} near-duplicate{'s' * (duplicates > 1)} (similarity from {found.near_duplicate:.4g} on)"
            if duplicates
            else None,
        ),
        ("unreadable", _unreadable(found.unreadable, settings)),
        ("table", str(settings.output)),
        ("page", str(found.page)),
        ("then", _next(model, images, settings)),
    ]
    show(rows, {**asdict(found), "output": settings.output}, facts, as_json=as_json)


def _unreadable(unreadable: Sequence[object], settings: SelectSettings) -> str | None:
    from sslight.api.file_pass import listing_of

    return f"{len(unreadable):,}, listed in {listing_of(settings.output)}" if unreadable else None


def _next(model: str, images: Sequence[str], settings: SelectSettings) -> str:
    paths = images[0] if len(images) == 1 else f"[{', '.join(images)}]"
    words = ["sslight", "finetune", model, f"data.train={paths}", f"data.labels={settings.output}"]
    earlier = "" if settings.labeled is None else f", add the rows of {settings.labeled}"
    return f"fill in the column label{earlier}; {shlex.join([*words, 'data.subset=labeled'])} data.val=... output=..."
