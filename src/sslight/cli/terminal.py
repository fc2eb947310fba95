"""What every command writes: characters that the terminal has, tables and JSON of one form."""

import codecs
import io
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

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
    """From now on, a character that the terminal's encoding lacks is written as one or several that it has."""
    codecs.register_error("sslight", _in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sslight")


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*row)
    say(table)


def say(*parts: object, style: str | None = None, stderr: bool = False) -> None:
    """Print text or a table as it is, no bracket in it read as markup."""
    Console(soft_wrap=True, highlight=False, stderr=stderr).print(*parts, style=style, markup=False)
