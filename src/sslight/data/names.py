"""Compact storage for millions of names."""

from collections.abc import Iterable

import numpy as np


class NameTable:
    """An immutable sequence of names in one block of bytes: about 8 bytes beyond the text for each.

    A list of a million Python strings takes ten times as much, and its reference counts make every
    forked worker copy the pages. Names that are not valid UTF-8 (file systems allow them) are kept
    through ``surrogateescape``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        text = bytearray()
        ends: list[int] = []
        for name in names:
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        self._text = bytes(text)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self._ends):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index]].decode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """The name as text that every terminal and file takes: bytes outside UTF-8 become ``�``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
