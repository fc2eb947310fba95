"""The members of a tar file, read header by header without taking a length on trust.

POSIX ustar and pax headers and GNU's long names; the layout is that of IEEE Std 1003.1, "pax".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCK = 512

LARGEST_GAP = 2**26
"""Bytes of zeros between or after the tar files in a file at most; tar itself writes less than 10 kB."""

LARGEST_EXTENSION = 2**20  # Bytes of a long name or a pax header that are read at most

ReadAt = Callable[[int, int], bytes]  # ``read_at(offset, count)``: so many bytes, fewer at the end of the file

_FILES = (b"0", b"\0", b"7")
_LINKS = (b"1", b"2")
_WITHOUT_DATA = (*_LINKS, b"3", b"4", b"5", b"6")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _GNU_SPARSE = b"L", b"K", b"x", b"g", b"S"


class DamagedTar(ValueError):
    """A file that is no intact tar file; the text is the reason, without the file's name."""


@dataclass(frozen=True)
class Member:
    """A file or link in a tar file; its ``size`` bytes begin at ``offset`` and lie within the file."""

    name: str
    offset: int
    size: int
    is_link: bool


def tar_members(read_at: ReadAt, num_bytes: int) -> Iterator[Member]:
    """Files and links of a tar file of ``num_bytes`` bytes, in order; folders and devices are left out.

    What other tar files follow on the end mark (``cat a.tar b.tar``) is read too. Names lose leading
    ``./``. Raises DamagedTar for a damaged header, data beyond the end of the file, a missing end
    mark, and names that are absolute or climb with ``..``.
    """
    position = 0
    long_name: bytes | None = None
    pax: dict[bytes, bytes] = {}
    while True:
        header = read_at(position, BLOCK)
        if len(header) < BLOCK:
            raise DamagedTar("ends without the end mark of a tar file, so a part is missing")
        if header == bytes(BLOCK):
            position = _end_of_zeros(read_at, position, num_bytes)
            if position >= num_bytes:
                return
            continue
        if not _has_valid_checksum(header):
            raise DamagedTar(f"has no valid header at byte {position:,}")
        kind = header[156:157]
        size = _pax_size(pax[b"size"]) if b"size" in pax else _number(header[124:136])
        offset = position + BLOCK
        stored = 0 if kind in _WITHOUT_DATA else size
        position = offset + -(-stored // BLOCK) * BLOCK
        if position > num_bytes:
            raise DamagedTar(f"ends within {_name(header, long_name, pax)}, so a part is missing")
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            if size > LARGEST_EXTENSION:
                raise DamagedTar(f"has a header of {size:,} bytes at {offset - BLOCK:,}")
            content = read_at(offset, size)
            if kind == _LONG_NAME:
                long_name = content.split(b"\0")[0]
            elif kind == _PAX:
                pax = _pax_records(content)
            continue
        name = _name(header, long_name, pax)
        if kind == _GNU_SPARSE or any(key.startswith(b"GNU.sparse") for key in pax):
            raise DamagedTar(f"stores {name} as a sparse file; make it again without --sparse")
        long_name, pax = None, {}
        if kind in _LINKS or (kind in _FILES and not name.endswith("/")):
            yield Member(_safe(name), offset, size, kind in _LINKS)


def _end_of_zeros(read_at: ReadAt, position: int, num_bytes: int) -> int:
    """Where the block begins that is not all zeros, from ``position`` on."""
    for start in range(position, min(num_bytes, position + LARGEST_GAP), 64 * BLOCK):
        content = read_at(start, 64 * BLOCK)
        rest = content.lstrip(b"\0")
        if rest:
            return start + (len(content) - len(rest)) // BLOCK * BLOCK
    if num_bytes > position + LARGEST_GAP:
        raise DamagedTar(f"has more than {LARGEST_GAP:,} bytes of zeros at byte {position:,}")
    return num_bytes


def is_header_of(header: bytes, size: int) -> bool:
    """Whether ``header`` is a whole, valid one of a member of ``size`` bytes."""
    try:
        return len(header) == BLOCK and _has_valid_checksum(header) and _number(header[124:136]) == size
    except DamagedTar:
        return False


def _has_valid_checksum(header: bytes) -> bool:
    # The sum over all bytes, those of the checksum itself counting as spaces.
    return _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or GNU's base 256. Raises DamagedTar."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise DamagedTar("has a header with a negative number")
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if digits and (digits.strip(b"01234567") or len(digits) > 12):
        raise DamagedTar("has a header with an invalid number")
    return int(digits or b"0", 8)


def _pax_size(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise DamagedTar("has a pax header with an invalid size")
    return int(text)


def _name(header: bytes, long_name: bytes | None, pax: dict[bytes, bytes]) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    return pax.get(b"path", name if long_name is None else long_name).decode("utf-8", "surrogateescape")


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Records ``LENGTH KEY=VALUE`` that end with a newline, the length being that of the whole record."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content) and content[position] != 0:
        length_text, _, _ = content[position : position + 20].partition(b" ")
        length = int(length_text) if length_text.isdigit() else 0
        record = content[position : position + length]
        key, equals, value = record[len(length_text) + 1 : -1].partition(b"=")
        if not equals or len(record) < length or not record.endswith(b"\n"):
            raise DamagedTar("has a damaged pax header")
        records[key] = value
        position += length
    return records


def _safe(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts:
        raise DamagedTar(f"holds {name!r}, which lies outside its folder; make it again with relative names")
    return "/".join(parts)
