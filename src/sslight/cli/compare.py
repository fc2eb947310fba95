"""``sslight compare``: results side by side with published ones."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sslight.cli.terminal import AsJson, say_json


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="results.json files, or their folders.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Print results of `sslight evaluate` as Markdown tables, with the published rows beside them."""
    from sslight import evaluate

    contents = [evaluate.read_result(path) for path in results]
    rows = evaluate.compare_results([content for content in contents if content["protocol"] != "detect"])
    detections = evaluate.compare_detections([content for content in contents if content["protocol"] == "detect"])
    if as_json:
        say_json([*map(asdict, rows), *map(asdict, detections)])
        return
    tables = [evaluate.to_markdown(rows)] if rows else []
    tables += [evaluate.detections_to_markdown(detections)] if detections else []
    print("\n\n".join(tables))
