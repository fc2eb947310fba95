"""Which images of a source are used: a list file or a share."""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt

from sslight.config.schema.evaluate_settings import EvaluateDataSettings
from sslight.config.schema.pretrain_settings import DataSettings
from sslight.data.sources.build import build_source
from sslight.data.sources.combine import SubsetSource
from sslight.data.sources.lists.find import NameFinder
from sslight.data.sources.lists.labels import read_list
from sslight.data.sources.names import is_utf8, printable
from sslight.data.sources.source import Source
from sslight.data.sources.suffixes import is_image
from sslight.data.sources.tar.sharded import Blocks


def source_builder(data: DataSettings | EvaluateDataSettings) -> Callable[..., Source]:
    """:func:`build_source` that reads images and tables of labels as these settings say."""
    column, several, image = data.labels_column, data.multi_label, data.tar_image
    return partial(build_source, labels_column=column, multi_label=several, tar_image=image)


def build_training_source(data: DataSettings, *, labeled: bool) -> Source:
    """The images that a run trains on: data.train or the part of it that data.subset selects.

    With labels if they are asked for, or if there are some and a share is drawn by class. Raises ValueError.
    """
    build = partial(
        source_builder(data),
        data.train,
        labels=data.labels,
        blocks=Blocks(data.window, int(data.cache_gb * 1e9)) if data.order == "blocks" else None,
    )
    if data.subset is None:
        return build(labeled=labeled)
    source = None
    if not labeled and isinstance(data.subset, float):
        with suppress(ValueError):  # no classes: the share is drawn from all images alike
            source = build(labeled=True)
    source = source or build(labeled=labeled)
    return SubsetSource(source, select_subset(source, data.subset, data.subset_seed))


def select_subset(
    source: Source, subset: str | float, seed: int, *, setting: str = "data.subset"
) -> npt.NDArray[np.int64]:
    """Sorted indices of the images that ``subset`` selects, int64 ``[M]``.

    A string is a list file, one image a line: a name or path (see ``NameFinder``), an index, or
    ``index,label,wnid,filename`` as the original's lists have it, where ``wnid/filename`` is looked up first and the
    index, which counts sorted classes and then names, is used if there is no such name. Blank lines are ignored, and
    lines that begin with ``#`` unless they name an image.

    A number is a share, 0 < share ≤ 1, drawn with ``seed``: ``share · n`` of the n images of each class (of all if
    unlabeled), halves rounded up and at least one. A larger share with the same seed contains the smaller one.

    Raises ValueError with counts and the first few entries that do not fit; ``setting`` is the name that errors show.
    """
    if isinstance(subset, str):
        return _listed(source, subset, setting)
    if not 0.0 < subset <= 1.0:
        raise ValueError(f"{setting}={subset} is not a share; give a number above 0 and at most 1, or a list file")
    groups = np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(source))
    by_group = order[np.argsort(groups[order], kind="stable")]  # each group's images, in drawn order
    sizes = np.bincount(groups)
    rank_in_group = np.arange(len(source)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    wanted = np.maximum(np.floor(subset * sizes + 0.5), 1)
    return np.sort(by_group[rank_in_group < np.repeat(wanted, sizes)]).astype(np.int64)


def _listed(source: Source, path: str, setting: str) -> npt.NDArray[np.int64]:
    text = read_list(f"{setting}={path}", path, "give a list file (one name or index per line) or a share such as 0.1")
    lines = [line.strip(" \t") for line in re.split(r"\r\n|\n|\r", text)]
    find = NameFinder(source)
    entries, found = [], []
    for line in filter(None, lines):
        index = _image_of(line, source, find)
        if index is not None or not _is_remark(line, find):
            entries.append(line)
            found.append(index)
    if not entries:
        raise ValueError(f"{setting}={path} lists no image; write one name or index per line")
    missing = [e for e, i in zip(entries, found, strict=True) if i is None]
    example = f"a correct entry is {printable(source.name(0))}"
    if not all(map(is_utf8, missing)):
        example = f"the list is not UTF-8 text: save it as UTF-8; {example}"
    _refuse(setting, path, "name no image of the set", missing, example)
    indices = np.array(found, dtype=np.int64)
    repeated = {index for index, count in Counter(indices.tolist()).items() if count > 1}
    extra = [e for e, i in zip(entries, indices.tolist(), strict=True) if i in repeated]
    _refuse(setting, path, "name an image that another line names too", extra, "name each image once")
    return np.sort(indices)


def _is_remark(line: str, find: NameFinder) -> bool:
    """Whether a line that names no image is a remark or an entry that was switched off, not a misspelt name."""
    rest = line.lstrip("# \t")
    return line.startswith("#") and (line[1:2] in (" ", "#", "") or not is_image(line) or find(rest) is not None)


def _image_of(line: str, source: Source, find: NameFinder) -> int | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 4 or not fields[0].isdecimal():
        return find(line)
    index, _, wnid, filename = fields  # a line of the original's lists
    by_name = find.by_name(f"{wnid}/{filename}")
    if by_name is not None or int(index) >= len(source):
        return by_name
    # An image of another class at this index shows that the list is for another set.
    return int(index) if wnid in source.name(int(index)).split("/")[:-1] else None


def _refuse(setting: str, path: str, what: str, entries: list[str], example: str) -> None:
    if entries:
        first = ", ".join(printable(entry if len(entry) <= 80 else f"{entry[:77]}...") for entry in entries[:3])
        raise ValueError(
            f"{setting}={path}: {len(entries)} lines {what} (first: {first}); {example}: correct the list or data.train"
        )
