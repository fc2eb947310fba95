"""From paths to a source of images."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py

from sslight.data.decoding.limits import one_line
from sslight.data.sources.combine import ConcatSource, leaves
from sslight.data.sources.folder.source import FileListSource, FolderSource
from sslight.data.sources.h5.source import H5Source
from sslight.data.sources.lists.labels import labeled_by_table
from sslight.data.sources.names import printable
from sslight.data.sources.parquet import LARGEST_GROUP, LARGEST_PACKED_GROUP, ParquetSource, check_one_split
from sslight.data.sources.source import Source
from sslight.data.sources.suffixes import passed_over_in_words
from sslight.data.sources.synthetic import SyntheticSource
from sslight.data.sources.tar.remote import RemoteFile, is_remote, shown_address
from sslight.data.sources.tar.sharded import SHARDS_ONLY, Blocks, ShardedTarSource
from sslight.data.sources.tar.shards import expand, is_pattern, shards_in
from sslight.data.sources.tar.source import AT_ONCE, TarSource
from sslight.reading import near_name

PARQUET = ".parquet"

_MASK_FOLDERS = frozenset({"masks", "annotations", "segmentations", "segmentation", "labels", "groundtruth", "gt"})
_MOST_NAMES = 200_000  # looking at more takes seconds

_KINDS = "a folder of images, an H5 file, tar shards, Parquet files"


def build_source(
    paths: Sequence[str],
    *,
    labeled: bool,
    setting: str = "data.train",
    labels: str | None = None,
    labels_column: str | None = None,
    tar_image: str | None = None,
    in_order: bool = False,
    only_labeled: bool | None = None,
    multi_label: bool | None = None,
    blocks: Blocks | None = None,
) -> Source:
    """The images at ``paths``: folders, H5 files, tar shards, Parquet files, ``synthetic:N[:val]``; several are joined.

    With ``labeled`` the classes are the direct sub-folders of a folder, the groups of an H5 file and
    the ``KEY.cls`` of tar shards, or what the table ``labels`` says (see ``labeled_by_table``, also for
    ``only_labeled`` and ``multi_label``); without it no class mapping is built. ``tar_image`` says which image of a
    sample in tar shards is read (see ``TarSource``).
    ``in_order`` says that images are read in their order, so that any Parquet file may be given; ``blocks`` that shards
    are gone through in windows (``ShardedTarSource``), and then nothing but shards may be given. ``setting`` is the
    name that errors show. Tar shards may also lie in a store (``https://``, ``s3://``). Raises ValueError for anything
    that gives no images, StoreUnavailable for a store that does not answer.
    """
    if not paths:
        raise ValueError(f"{setting} is empty: set it to a folder of images, an H5 file, tar shards or synthetic:N")
    table = labels if labeled else None
    largest_group = LARGEST_PACKED_GROUP if in_order else LARGEST_GROUP
    opener = _Opener(labeled and table is None, setting, tar_image, largest_group, blocks)
    parts = [opener.source(path) for path in paths]
    if blocks is not None:
        blocks.check_room([part for part in parts if isinstance(part, ShardedTarSource)])
    may_differ = setting in ("data.val", "probe.train")  # from the kind of data.train
    if (
        tar_image is not None
        and not may_differ
        and not any(isinstance(part, TarSource | ShardedTarSource) for part in parts)
    ):
        raise ValueError(f"tar_image={tar_image} would have no effect: {setting} names no tar shards; leave it out")
    source = parts[0] if len(parts) == 1 else ConcatSource(parts, _prefixes(paths))
    if table is None:
        return source
    return labeled_by_table(source, table, labels_column, setting, only_labeled=only_labeled, multi_label=multi_label)


def passed_over(source: Source) -> dict[str, int]:
    """What a source holds and does not give: numbers by suffix, by kind, or by folder with ``/``."""
    counted = (leaf for leaf in leaves(source) if isinstance(leaf, FolderSource | TarSource | ShardedTarSource))
    return dict(sum((Counter(leaf.passed_over) for leaf in counted), Counter()))


def source_notice(source: Source) -> str:
    """One line on how many images a run has, what was passed over, and which look like masks, for people."""
    words = [f"{len(source):,} images", passed_over_in_words(passed_over(source)), masks_in_words(source)]
    return "; ".join(filter(None, words))


def masks_in_words(source: Source) -> str:
    """A sentence on images in folders called ``masks`` or alike that have another image's name.

    Empty without any, for more than 200,000 images, and for shards gone through in windows, which are not all opened.
    """
    if len(source) > _MOST_NAMES or any(isinstance(leaf, ShardedTarSource) for leaf in leaves(source)):
        return ""
    names = [source.name(index) for index in range(len(source))]
    in_masks = [not _MASK_FOLDERS.isdisjoint(name.lower().split("/")[:-1]) for name in names]
    if not any(in_masks):
        return ""
    stems = [PurePosixPath(name).stem for name in names]
    pictures = {stem for stem, is_mask in zip(stems, in_masks, strict=True) if not is_mask}
    masks = [name for name, stem, is_mask in zip(names, stems, in_masks, strict=True) if is_mask and stem in pictures]
    if not masks:
        return ""
    first = printable(masks[0])
    return f"{len(masks):,} of them look like masks ({first}): to exclude them, give the folder of the pictures"


def build_image_source(paths: Sequence[str], *, setting: str, tar_image: str | None = None) -> Source:
    """The images at ``paths`` without labels: whatever :func:`build_source` takes, or image files.

    Files and sets do not mix. ``setting`` is the name that errors show, ``tar_image`` as there. Raises ValueError
    for anything that gives no images.
    """
    if any(_is_set(path) for path in paths):
        return build_source(paths, labeled=False, setting=setting, tar_image=tar_image)
    try:
        return FileListSource(paths)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


def _is_set(path: str) -> bool:
    """Whether a path is of more than one image."""
    where = Path(path).expanduser()
    if path.startswith("synthetic:") or is_remote(path) or where.is_dir():
        return True
    if not where.is_file():
        return is_pattern(path)
    return where.suffix.lower() in (".tar", PARQUET) or bool(h5py.is_hdf5(where))


@dataclass(frozen=True)
class _Opener:
    labeled: bool
    setting: str
    tar_image: str | None
    largest_group: int
    blocks: Blocks | None

    def source(self, path: str) -> Source:
        source = self._source(path)
        if self.blocks is not None and not isinstance(source, ShardedTarSource):
            raise ValueError(f"{self.setting}={path}: {SHARDS_ONLY}.")
        return source

    def _source(self, path: str) -> Source:
        if path.startswith("synthetic:"):
            return _synthetic(path, labeled=self.labeled, setting=self.setting)
        if is_remote(path):
            return self._shards(_remote_shards(path, self.setting))
        try:
            where = Path(path).expanduser()
            suffix, is_file = where.suffix.lower(), where.is_file()
            if is_pattern(path) and not where.exists():
                files = _files_of_pattern(path, self.setting)
                return self._tables(files) if suffix == PARQUET else self._shards(files)
            if where.is_dir():
                return self._folder(where)
            if is_file and h5py.is_hdf5(where):
                return H5Source(where, labeled=self.labeled)
            if is_file and suffix in (".tar", PARQUET):
                return self._tables([where]) if suffix == PARQUET else self._shards([where])
        except (OSError, RuntimeError) as error:  # h5py raises either for a damaged file
            raise ValueError(
                f"{self.setting}={path} cannot be read ({one_line(error)}); check the path and its permissions"
            ) from error
        if is_file:
            raise ValueError(f"{self.setting}={path} is a file, but not .h5, .tar or .parquet; give {_KINDS}")
        raise ValueError(f"{self.setting}={path} does not exist; give {_KINDS} or synthetic:N{near_name(path)}")

    def _folder(self, folder: Path) -> Source:
        if shards := shards_in(folder):
            return self._shards(shards)
        if tables := shards_in(folder, PARQUET):
            check_one_split(folder, tables)
            return self._tables(tables)
        if self.blocks is not None:  # before a large folder is listed
            raise ValueError(f"{self.setting}={folder}: {SHARDS_ONLY}.")
        try:
            return FolderSource(folder, labeled=self.labeled)
        except ValueError as error:  # which begins with the folder
            raise ValueError(f"{self.setting}={error}") from None

    def _shards(self, files: Sequence[Path | str]) -> TarSource | ShardedTarSource:
        if self.blocks is not None:
            return ShardedTarSource(files, labeled=self.labeled, blocks=self.blocks, image=self.tar_image)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            found = list(threads.map(lambda file: RemoteFile(file) if isinstance(file, str) else file, files))
        return TarSource(found, labeled=self.labeled, image=self.tar_image)

    def _tables(self, files: Sequence[Path]) -> ParquetSource:
        return ParquetSource(files, labeled=self.labeled, largest_group=self.largest_group)


def _files_of_pattern(pattern: str, setting: str) -> list[Path]:
    shards = [Path(path).expanduser() for path in expand(pattern)]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise ValueError(
            f"{setting}={pattern}: {len(missing)} of {len(shards)} shards do not exist (first: {missing[0]}); "
            "check the pattern"
        )
    return shards


def _remote_shards(path: str, setting: str) -> list[str]:
    addresses = expand(path)
    if not addresses[0].partition("?")[0].endswith(".tar"):
        raise ValueError(
            f"{setting}={shown_address(path)} is not the address of tar shards, the only form that can be read from a "
            "store; give, for example, https://host/shard-{000..009}.tar"
        )
    return addresses


def _synthetic(path: str, *, labeled: bool, setting: str) -> SyntheticSource:
    count, _, split = path.removeprefix("synthetic:").partition(":")
    if not (count.isascii() and count.isdigit() and int(count) > 0) or split not in ("", "train", "val"):
        raise ValueError(
            f"{setting}={path} is not of the form synthetic:N or synthetic:N:val with N ≥ 1; "
            "write, for example, synthetic:2000"
        )
    return SyntheticSource(int(count), split=split or "train", labeled=labeled)


def _prefixes(paths: Sequence[str]) -> list[str]:
    """Names of the parts of a joined source: the last parts of the paths if these differ."""
    # What follows on the question mark of an address is mostly a signature, and a secret.
    paths = [shown_address(path) if is_remote(path) else path for path in paths]
    places = [path if is_remote(path) else os.path.realpath(Path(path).expanduser()) for path in paths]
    twice = next((path for number, path in enumerate(paths) if places[number] in places[:number]), None)
    if twice is not None:
        raise ValueError(f"the same path is given twice: {twice}; name each path once")
    short = [Path(path).name or path for path in paths]
    return short if len(set(short)) == len(short) else list(paths)
