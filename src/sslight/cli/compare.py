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
    """Print results of `sslight evaluate` as Markdown tables, with the published rows beside them."""
    from sslight.evaluate import (
        compare_detections,
        compare_results,
        detections_to_markdown,
        read_result,
        to_markdown,
    )

    contents = [read_result(path) for path in results]
    rows = compare_results([content for content in contents if content["protocol"] != "detect"])
    detections = compare_detections([content for content in contents if content["protocol"] == "detect"])
    if as_json:
        print(json.dumps([*map(asdict, rows), *map(asdict, detections)]))
        return
    tables = [to_markdown(rows)] if rows else []
    tables += [detections_to_markdown(detections)] if detections else []
    print("\n\n".join(tables))
