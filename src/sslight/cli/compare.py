"""``sslight compare``: results side by side with published ones and with each other."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sslight.cli.terminal import AsJson, say_json

_BETWEEN = "vs"


def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...",
            help="results.json files, their folders, or run folders. Of two, the difference is given; of several "
            "seeds too: A1 A2 A3 vs B1 B2 B3.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print results of `sslight evaluate` as Markdown tables, with published rows, and which of two is higher."""
    sides = [results] if len(results) != 2 else [results[:1], results[1:]]
    if _BETWEEN in results:
        at = results.index(_BETWEEN)
        sides = [results[:at], results[at + 1 :]]
    if not all(sides) or _BETWEEN in sides[-1]:
        raise ValueError(f"{' '.join(results)}: name results on both sides of one {_BETWEEN}, as in A1 A2 vs B1 B2.")
    from sslight.evaluate.compare import compare_files

    found = compare_files([[Path(path).expanduser() for path in side] for side in sides])
    if as_json:
        say_json(asdict(found))
    else:
        print(found.to_markdown())
