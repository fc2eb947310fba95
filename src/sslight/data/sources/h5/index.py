"""What an H5 file of the original's layout holds, and where its bytes lie."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from sslight.data.decoding.limits import UnreadableImage
from sslight.data.sources.names import NameTable, printable
from sslight.data.sources.source import evenly_spread
from sslight.data.sources.tables import Table, cached_file, index_from, read_table, write_table

CHECKED = 64  # Images of an index that are looked up in the file before the index is believed


@dataclass(frozen=True)
class H5Index:
    """Images in each class by sorted class name, the names ``class/image`` in order, and where they lie if known.

    ``places`` are offset and size of each image in bytes, int64 ``[N, 2]``; offset -1 if not in one piece.
    """

    classes: dict[str, int]
    names: NameTable
    places: npt.NDArray[np.int64] | None = None

    def table(self, num_bytes: int) -> Table:
        arrays = self.names.arrays()
        if self.places is not None:
            arrays |= {"offsets": self.places[:, 0], "sizes": self.places[:, 1]}
        return Table({"num_bytes": num_bytes, "classes": self.classes}, arrays)

    @classmethod
    def from_table(cls, table: Table) -> "H5Index":
        classes = {str(name): int(count) for name, count in table.head["classes"].items()}
        names = NameTable.from_arrays(table.arrays)
        ends = np.cumsum(list(classes.values())).tolist()
        if not ends or ends[-1] != len(names) or min(classes.values()) < 1:
            raise ValueError("its classes are not those of its names")
        for name, first, end in zip(classes, [0, *ends], ends, strict=False):
            if not (names[first].startswith(f"{name}/") and names[end - 1].startswith(f"{name}/")):
                raise ValueError("its names are not in the order of its classes")
        has_places = "offsets" in table.arrays
        return cls(classes, names, np.stack(table.byte_ranges(len(names), lowest=-1), 1) if has_places else None)


def load_h5_index(path: Path) -> H5Index:
    """The index beside the file or in the user's cache if one fits it, else the file's own listing.

    Raises ValueError for another layout, OSError or RuntimeError if the file cannot be opened.
    """
    num_bytes = path.stat().st_size
    beside = index_from(H5Index.from_table, read_table(h5_index_path(path)), num_bytes)
    if beside is not None and beside.places is not None and _agrees(path, beside.names, beside.places):
        return beside
    return cached_file("h5", path).index(num_bytes, H5Index.from_table, lambda: _listing(path), H5Index.table)


def write_h5_index(path: Path) -> None:
    """Write the index with all places beside the file; it travels with it, so only the size identifies the file."""
    index = _listing(path)
    with h5py.File(path, "r") as file:
        places = [place_of(file, index.names[number]) or (-1, 0) for number in range(len(index.names))]
    placed = replace(index, places=np.array(places, dtype=np.int64))
    write_table(h5_index_path(path), placed.table(path.stat().st_size))


def h5_index_path(path: Path) -> Path:
    """``train.h5`` → ``train.h5.index``."""
    return path.with_name(f"{path.name}.index")


def place_of(file: h5py.File, name: str) -> tuple[int, int] | None:
    """Offset and number of bytes of a dataset that is one row of bytes in one piece; None for any other.

    Raises KeyError or RuntimeError if there is no such dataset.
    """
    dataset = h5py.h5d.open(file.id, encoded_name(name))
    offset, kind = dataset.get_offset(), dataset.get_type()
    is_row = kind.get_class() == h5py.h5t.INTEGER and kind.get_size() == 1 and dataset.rank == 1
    return (offset, dataset.get_storage_size()) if is_row and offset is not None else None


def refuse_links(file: h5py.File, name: str) -> None:
    """Raise UnreadableImage if a part of the name is a link, which may lead out of the file.

    A listing has none, but an index from elsewhere may name them.
    """
    parts = name.split("/")
    for count in range(1, len(parts) + 1):
        part = encoded_name("/".join(parts[:count]))
        if file.id.links.get_info(part).type != h5py.h5l.TYPE_HARD:
            raise UnreadableImage("it is a link in its H5 file, and links are not followed")


def encoded_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _listing(path: Path) -> H5Index:
    with h5py.File(path, "r") as file:
        images = {name: _images_in(file, path, name) for name in _links(file, path, "")}
    classes = {name: sorted(images[name]) for name in sorted(images) if images[name]}
    if not classes:
        raise ValueError(f"{path} holds no images; it needs one group per class with one dataset per image")
    names = NameTable(f"{name}/{image}" for name, found in classes.items() for image in found)
    return H5Index({name: len(found) for name, found in classes.items()}, names)


def _images_in(file: h5py.File, path: Path, name: str) -> list[str]:
    if _kind(file, name) != h5py.h5o.TYPE_GROUP:
        raise ValueError(f"{path}: {printable(name)} is outside any group; store one group of images per class")
    images = _links(h5py.Group(h5py.h5g.open(file.id, encoded_name(name))), path, f"{name}/")
    # One look a class: groups among the images are met as unreadable images.
    if images and _kind(file, f"{name}/{images[0]}") == h5py.h5o.TYPE_GROUP:
        for deeper in file[encoded_name(f"{name}/{images[0]}")]:
            raise ValueError(
                f"{path}: {printable(f'{name}/{images[0]}/{deeper}')} is deeper than group/image; store one group "
                "per class"
            )
    return images


def _links(group: h5py.Group, path: Path, prefix: str) -> list[str]:
    """Names in a group. Raises ValueError for a link that may lead elsewhere."""
    found: list[str] = []
    links: list[str] = []

    def look(name: bytes, info: h5py.h5l.LinkInfo) -> None:
        (found if info.type == h5py.h5l.TYPE_HARD else links).append(name.decode("utf-8", "surrogateescape"))

    group.id.links.iterate(look, info=True)
    if links:
        raise ValueError(
            f"{path}: {printable(prefix + links[0])} is a link, and links are not followed; store the image itself"
        )
    return found


def _kind(file: h5py.File, name: str) -> int:
    kind: int = h5py.h5o.get_info(file.id, encoded_name(name)).type
    return kind


def _agrees(path: Path, names: NameTable, places: npt.NDArray[np.int64]) -> bool:
    """Whether evenly spread images of an index lie in the file where it says."""
    numbers = evenly_spread(len(names), CHECKED).tolist()
    with h5py.File(path, "r") as file, suppress(KeyError, RuntimeError):
        return all((place_of(file, names[number]) or (-1, 0)) == tuple(places[number]) for number in numbers)
    return False
