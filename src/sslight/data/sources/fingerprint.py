"""What a set of images is, as numbers that change when it changes."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sslight.data.sources.combine import ConcatSource, SubsetSource, leaves
from sslight.data.sources.folder.source import FileListSource, FolderSource
from sslight.data.sources.h5.source import H5Source
from sslight.data.sources.parquet import ParquetSource
from sslight.data.sources.source import Source, evenly_spread
from sslight.data.sources.tar.remote import RemoteFile
from sslight.data.sources.tar.sharded import ShardedTarSource
from sslight.data.sources.tar.source import TarSource

NUM_READ_IMAGES = 64  # Images whose bytes are part of a set's fingerprint


@dataclass(frozen=True)
class DataFingerprint:
    """The number of images and three SHA-256 (hex), each of one kind of difference."""

    num_images: int
    names: str
    labels: str
    contents: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.num_images};{self.names};{self.labels};{self.contents}".encode()).hexdigest()


def data_fingerprint(source: Source) -> DataFingerprint:
    """The fingerprint of all names in order, of all classes and labels, and of the bytes of some images.

    Of shards gone through in windows it is that of their own names and sizes. The bytes are those of up to 64 images
    spread evenly; reading all would cost as much as using them. An unreadable one counts as such.
    """
    names = hashlib.sha256()
    for line in _all_names(source):
        names.update(line.encode("utf-8", "surrogateescape") + b"\n")
    labels = hashlib.sha256()
    if source.classes is not None and source.labels is not None:
        labels.update("\n".join(source.classes).encode("utf-8", "surrogateescape"))
        labels.update(source.labels.tobytes())
    contents = hashlib.sha256()
    for index in evenly_spread(len(source), NUM_READ_IMAGES).tolist():
        try:
            content = source.read(index)
        except (OSError, ValueError):
            content = b"unreadable"
        contents.update(hashlib.sha256(content).digest())
    return DataFingerprint(len(source), names.hexdigest(), labels.hexdigest(), contents.hexdigest())


def _all_names(source: Source) -> Iterable[str]:
    match source:
        case ShardedTarSource():
            return source.shard_lines()
        case ConcatSource() if all(isinstance(part, ShardedTarSource) for part in source.parts):
            return chain.from_iterable(map(_all_names, source.parts))
        case SubsetSource(whole=ShardedTarSource() as whole):
            return chain(whole.shard_lines(), map(str, source.indices.tolist()))
        case _:
            return (source.name(index) for index in range(len(source)))


def files_fingerprint(source: Source) -> str:
    """SHA-256 of size and time of change (of remote files version) of all files that the images lie in.

    Any change of an image shows in it, and none is read; but so does a mere copy. A file that is not there counts as
    such. Images of a set that is only drawn have no files.
    """
    digest = hashlib.sha256()
    for file in _files_of(source):
        if isinstance(file, RemoteFile):
            digest.update(f"{file.size} {file.version}\n".encode())
            continue
        try:
            status = os.stat(file)  # noqa: PTH116 - a tenth of the time for millions of files
        except OSError:
            digest.update(b"missing\n")
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files_of(source: Source) -> Iterator[str | Path | RemoteFile]:
    for leaf in leaves(source):
        if isinstance(leaf, FolderSource | FileListSource | TarSource | H5Source | ParquetSource):
            yield from leaf.files()
