"""From paths to a source of images."""

from collections.abc import Sequence
from pathlib import Path

import h5py

from sslight.data.combine import ConcatSource
from sslight.data.folder import FolderSource
from sslight.data.h5 import H5Source
from sslight.data.source import Source
from sslight.data.synthetic import SyntheticSource


def build_source(paths: Sequence[str], *, labelled: bool, setting: str = "data.train") -> Source:
    """The images at ``paths``: folders, H5 files or ``synthetic:N[:val]``; several are joined.

    With ``labelled`` the classes are the direct sub-folders of a folder and the groups of an H5
    file; without it no class mapping is built. ``setting`` is the name that errors show. Raises
    ValueError for anything that gives no images.
    """
    if not paths:
        raise ValueError(f"{setting} is empty: set it to a folder of images, an H5 file or synthetic:N")
    parts = [_one_source(path, labelled=labelled, setting=setting) for path in paths]
    return parts[0] if len(parts) == 1 else ConcatSource(parts, _prefixes(paths))


def _one_source(path: str, *, labelled: bool, setting: str) -> Source:
    if path.startswith("synthetic:"):
        return _synthetic(path, labelled=labelled, setting=setting)
    where = Path(path).expanduser()
    try:
        if where.is_dir():
            return FolderSource(where, labelled=labelled)
        if where.is_file():
            if not h5py.is_hdf5(where):
                raise ValueError(
                    f"{setting}={path} is a file but not an H5 file; give a folder of images or an H5 file"
                )
            return H5Source(where, labelled=labelled)
    except (OSError, RuntimeError) as error:  # h5py raises either for a damaged file
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise ValueError(f"{setting}={path} cannot be read ({reason}); check the path and its rights") from error
    raise ValueError(f"{setting}={path} does not exist; give a folder of images, an H5 file or synthetic:N")


def _synthetic(path: str, *, labelled: bool, setting: str) -> SyntheticSource:
    count, _, split = path.removeprefix("synthetic:").partition(":")
    if not (count.isascii() and count.isdigit() and int(count) > 0) or split not in ("", "train", "val"):
        raise ValueError(
            f"{setting}={path} is not of the form synthetic:N or synthetic:N:val with N ≥ 1; "
            "write for example synthetic:2000"
        )
    return SyntheticSource(int(count), split=split or "train", labelled=labelled)


def _prefixes(paths: Sequence[str]) -> list[str]:
    """Names of the parts of a joined source: the last parts of the paths if these differ."""
    short = [Path(path).name or path for path in paths]
    if len(set(short)) == len(short):
        return short
    if len(set(paths)) == len(paths):
        return list(paths)
    raise ValueError(f"the same path is given twice: {max(paths, key=list(paths).count)}; name each path once")
