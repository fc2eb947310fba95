"""What a file's name says of its content, and what is said of files that are no image."""

from collections import Counter
from collections.abc import Mapping

from sslight.reading import IMAGE_SUFFIXES as IMAGE_SUFFIXES

RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".ari", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc"),
        *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".raf", ".raw", ".rw2", ".rwl", ".sr2"),
        *(".srf", ".srw", ".x3f"),
    }
)
"""Photographs as the camera's sensor saw them."""

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})

THUMBNAIL_FOLDERS = frozenset({"@eadir", "__macosx"})
"""Folders, in small letters, of what systems keep beside pictures; others' names begin with a dot (``.thumbnails``)."""

HIDDEN = "hidden images"
NO_FILE = "links to nothing, pipes or devices named like images"
NO_SUFFIX = "without a suffix"
_SHOWN = 8


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def passed_over_as(name: str) -> str:
    """The kind under which a file that is no image is counted: its suffix in small letters."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot and suffix else NO_SUFFIX


def passed_over_in_words(counts: Mapping[str, int]) -> str:
    """One sentence on what was passed over, empty for nothing; ``counts`` are by suffix, or by folder with ``/``."""
    folders = {name: number for name, number in counts.items() if name.endswith("/")}
    raw = {name: number for name, number in counts.items() if name in RAW_SUFFIXES}
    archives = {name: number for name, number in counts.items() if name in ARCHIVE_SUFFIXES}
    named = folders | raw | archives
    others = {name: number for name, number in counts.items() if name not in named}
    parts = [_listed(others)] if others else []
    if raw:
        parts.append(f"{_listed(raw)} (raw photographs, which are not read: export them as JPEG or TIFF)")
    if archives:
        parts.append(f"{_listed(archives)} (archives: unpack them, .tar.gz to .tar)")
    if folders:
        parts.append(f"{_listed(folders)} (hidden folders and thumbnails)")
    return f"skipped: {', '.join(parts)}" if parts else ""


def _listed(counts: Mapping[str, int]) -> str:
    common = Counter(counts).most_common()
    listed = [f"{number:,} {name}" for name, number in common[:_SHOWN]]
    rest = sum(number for _, number in common[_SHOWN:])
    return ", ".join(listed + ([f"{rest:,} more"] if rest else []))
