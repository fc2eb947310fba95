"""What all commands use to print: characters that the terminal has, tables, and JSON."""

import codecs
import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, TypeVar

import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
_R = TypeVar("_R")

_PLAIN = {"·": "-", "–": "-", "−": "-", "×": "x", "→": "->", "←": "<-", "…": "...", "‖": "|", "≤": "<=", "≥": ">="} | {
    "±": "+-", "≠": "!=", "²": "^2", "√": "sqrt ", "½": "1/2", "¼": "1/4", "\u2009": " ", "\u202f": " ", "\xa0": " "
}  # fmt: skip


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in text)
    return plain, error.end


def write_what_the_terminal_can() -> None:
    """From now on, characters missing from the terminal's encoding are replaced by similar ones."""
    codecs.register_error("sslight", _in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sslight")


def facts(rows: Iterable[tuple[str, str | None]], *, stderr: bool = False) -> None:
    """Print names and values, wrapped between words so that long paths can be copied. None is left out."""
    kept = [(name, value) for name, value in rows if value is not None]
    indent = max((len(name) for name, _ in kept), default=0) + 2
    width = Console(stderr=stderr).width
    for name, value in kept:
        first, after = f"{name:<{indent}}", " " * indent
        say(
            textwrap.fill(
                value,
                width,
                initial_indent=first,
                subsequent_indent=after,
                break_long_words=False,
                break_on_hyphens=False,
            ),
            stderr=stderr,
        )


def columns(
    headings: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: bool = False, no_wrap: bool = False
) -> Table:
    """A table. ``numbers``: all columns but the first are right-aligned; ``no_wrap``: no cell is wrapped."""
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if numbers and number else "left"
        table.add_column(heading, justify=justify, no_wrap=no_wrap or number == 0, overflow="fold")  # nothing is cut
    for row in rows:
        table.add_row(*row)
    return table


def say(*parts: object, style: str | None = None, stderr: bool = False, narrowest: int = 0) -> None:
    """Print text or a table without interpreting markup; tables are at least ``narrowest`` columns wide."""
    console = Console(soft_wrap=True, highlight=False, stderr=stderr)
    console.width = max(console.width, narrowest)
    console.print(*parts, style=style, markup=False)


def as_typed(value: object, *, null: str = "null") -> str:
    """A value as it is typed for a setting."""
    return null if value is None else json.dumps(value, default=str).strip('"')


def say_json(content: object) -> None:
    """Print plain data as JSON; paths become strings."""
    print(json.dumps(content, default=str))


def show(result: _R, content: object, in_words: Callable[[_R], None], *, as_json: bool) -> None:
    """Print a result: its content as JSON, or in words."""
    if as_json:
        say_json(content)
    else:
        in_words(result)
