"""Image files that are named one by one."""

from collections.abc import Sequence
from pathlib import Path

from sslight.data.decoding.limits import read_image_file
from sslight.data.sources.names import printable
from sslight.data.sources.source import UNLABELED


class FileListSource:
    """The image files at ``paths``, in that order and without labels; a file's name is its path as given.

    Raises ValueError if there is none, or one is missing or a folder.
    """

    classes, labels = UNLABELED

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
        return read_image_file(Path(self._paths[index]).expanduser())

    def name(self, index: int) -> str:
        return self._paths[index]

    def locate(self, index: int) -> str:
        return printable(self._paths[index])
