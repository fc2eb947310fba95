"""``sslight compare``: results beside published ones and beside each other."""

from dataclasses import asdict
from pathlib import Path

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, say_json
from sslight.config import read_words

_BETWEEN = "vs"


def compare(words: Words = None, as_json: AsJson = False) -> None:
    """Print evaluation results as Markdown tables, with published ones, and say which of two is higher."""
    results, _ = read_words("compare", words)
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
