"""Image files that are named one by one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import read_image_file
from sslight.data.sources.names import printable


class FileListSource:
    """The image files at ``paths``, in that order and without labels; a file's name is its path as given.

    Raises ValueError if there is none, or one is missing or a folder.
    """

    classes: tuple[str, ...] | None = None
    labels: npt.NDArray[np.int64] | None = None

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        if not self._paths:
            raise ValueError("there is no image: give the paths of image files")
        missing = [path for path in self._paths if not Path(path).expanduser().is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self._paths)} paths are not files (first: {printable(missing[0])}); "
                "give image files, or folders, H5 files and tar shards without single files among them"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> bytes:
        """The file's bytes. Raises OSError or UnreadableImage."""
        return read_image_file(Path(self._paths[index]).expanduser())

    def name(self, index: int) -> str:
        """The path as given."""
        return self._paths[index]

    def locate(self, index: int) -> str:
        """The path as given, printable."""
        return printable(self._paths[index])
