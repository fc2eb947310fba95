"""Images in a folder (class folders, a flat or a nested one), or files that are named one by one."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sslight.data.decoding.limits import read_image_file
from sslight.data.sources.folder.listing import list_images
from sslight.data.sources.names import printable
from sslight.data.sources.source import UNLABELED, Labeling, folder_labels
from sslight.data.sources.suffixes import passed_over_in_words
from sslight.reading import near_name


class FolderSource:
    """All images under ``root``, sub-folders included, in the order of their path components.

    Files are images by their suffix (any case); names that start with a dot and folders of thumbnails are left out.
    ``passed_over`` counts all that is no image, by suffix or folder. Links are followed, except to a folder that
    contains the link. With ``labeled`` the direct sub-folders that hold images, at any depth, are the classes.
    Raises ValueError if there is no image, or no class folders where labels are asked for; OSError if a folder
    cannot be listed. Large listings are kept between runs (see ``list_images``).
    """

    def __init__(self, root: str | Path, *, labeled: bool) -> None:
        self._root = os.fspath(root)
        self._names, counts = list_images(self._root)
        self.passed_over = counts
        if not len(self._names):
            words = passed_over_in_words(counts)
            raise ValueError(
                f"{self._root} holds no images{f' ({words})' if words else ''}; "
                "give a folder with files such as *.jpg, *.png or *.heic"
            )
        self.classes, self.labels = self._class_folders() if labeled else UNLABELED

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        return read_image_file(Path(self._root, self._names[index]))

    def name(self, index: int) -> str:
        return self._names[index].replace(os.sep, "/")

    def locate(self, index: int) -> str:
        return printable(str(Path(self._root, self._names[index])))

    def files(self) -> Iterator[str]:
        """The path of each image."""
        return (f"{self._root}{os.sep}{self._names[index]}" for index in range(len(self)))

    def _class_folders(self) -> Labeling:
        classes, labels = folder_labels((self._names[index] for index in range(len(self._names))), os.sep)
        loose = np.count_nonzero(labels < 0)
        if loose or len(classes) < 2:
            what = (
                f"has {loose} of {len(self._names)} images outside any sub-folder"
                if loose
                else f"has all images in one sub-folder ({classes[0]})"
            )
            raise ValueError(
                f"{self._root} {what}, so it has no labels; use one sub-folder per class or a table "
                "of labels (data.labels, data.val_labels), or turn off what needs labels"
            )
        return classes, labels


class FileListSource:
    """The image files at ``paths``, in that order and without labels; a file's name is its path as given.

    Raises ValueError if there is none, or one is missing or a folder.
    """

    classes, labels = UNLABELED

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        if not self._paths:
            raise ValueError("no image given: give the paths of image files")
        missing = [path for path in self._paths if not Path(path).expanduser().is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self._paths)} paths are not files (first: {printable(missing[0])}); "
                "give only image files, or only folders, H5 files and tar shards"
                f"{near_name(missing[0])}"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> bytes:
        return read_image_file(Path(self._paths[index]).expanduser())

    def name(self, index: int) -> str:
        return self._paths[index]

    def locate(self, index: int) -> str:
        return printable(self._paths[index])

    def files(self) -> Iterator[Path]:
        """The path of each image."""
        return (Path(path).expanduser() for path in self._paths)
