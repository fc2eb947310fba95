"""``sslight compare``: results side by side with published ones."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="results.json files, or their folders.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON on standard output.")] = False,
) -> None:
    """Print results of `sslight evaluate` as one Markdown table, with the published rows beside them."""
    from sslight.evaluate import compare_results, read_result, to_markdown

    rows = compare_results([read_result(path) for path in results])
    print(json.dumps([asdict(row) for row in rows]) if as_json else to_markdown(rows))
