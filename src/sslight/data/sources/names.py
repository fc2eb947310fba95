"""Compact storage for millions of names."""

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NO_UTF8 = re.compile(r"[\ud800-\udfff]")


class NameTable:
    """An immutable sequence of names in one block of bytes: 8 bytes beyond the text for each, also while it is built.

    A list of a million Python strings takes ten times as much, and its reference counts make every
    forked worker copy the pages. Names that are not valid UTF-8 (file systems allow them) are kept
    through ``surrogateescape``.
    """

    def __init__(self, names: Iterable[str | bytes]) -> None:
        text, ends = bytearray(), array("q")
        for name in names:
            text += name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        self._text, self._ends = memoryview(text).toreadonly(), np.frombuffer(ends, dtype=np.int64)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> "NameTable":
        """What :meth:`arrays` gave. Raises ValueError if an array is missing or they do not fit."""
        text, ends = arrays.get(f"{prefix}text"), arrays.get(f"{prefix}ends")
        if (
            text is None
            or ends is None
            or text.dtype != np.uint8
            or ends.dtype != np.int64
            or np.any(ends[:1] < 0)
            or np.any(ends[1:] < ends[:-1])
            or (ends[-1] if len(ends) else 0) != len(text)
        ):
            raise ValueError("the arrays are no table of names")
        table = cls(())
        table._text, table._ends = text.data.toreadonly(), ends
        return table

    def arrays(self, prefix: str = "") -> dict[str, npt.NDArray[Any]]:
        """``text`` (uint8 ``[T]``) and ``ends`` (int64 ``[N]``); name ``i`` is ``text[ends[i - 1] : ends[i]]``."""
        return {f"{prefix}text": np.frombuffer(self._text, dtype=np.uint8), f"{prefix}ends": self._ends}

    def all_encoded(self) -> list[bytes]:
        """All names as they are stored; several times faster than one by one."""
        ends = self._ends.tolist()
        return [bytes(self._text[start:end]) for start, end in zip([0, *ends], ends, strict=False)]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self._ends):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return str(self._text[start : self._ends[index]], "utf-8", "surrogateescape")


def printable(name: str) -> str:
    r"""The name as text that every terminal and file takes: bytes outside UTF-8 and control characters as ``\xff``.

    Written so in a list, an image is found again (``NameFinder``).
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_utf8(name: str) -> bool:
    """Whether a name was read from UTF-8, not kept through ``surrogateescape``."""
    return _NO_UTF8.search(name) is None


def first_few(values: Sequence[object]) -> str:
    """The first three as a list for a message."""
    return ", ".join(str(value) for value in values[:3]) + (", ..." if len(values) > 3 else "")
