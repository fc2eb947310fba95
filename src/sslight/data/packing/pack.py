"""Packing a set of images into one H5 file or tar shards: in several processes, never over another set.

Tar shards are written one after the other, and an interrupted packing goes on with the next; an H5 file begins anew.
"""

import errno
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sslight.config.schema.fields import MAX_PIXELS
from sslight.data.packing.h5 import BYTES_AN_IMAGE as H5_BYTES
from sslight.data.packing.h5 import write_h5
from sslight.data.packing.prepare import CHUNK, Tally, prepare, prepared_images
from sslight.data.packing.reencode import Stored
from sslight.data.packing.tar import BYTES_AN_IMAGE as TAR_BYTES
from sslight.data.packing.tar import finished_file, finished_shards, write_shard_list, write_shards
from sslight.data.sources.bad_images import BadImage, no_readable_image, write_bad_images
from sslight.data.sources.build import build_source
from sslight.data.sources.h5.index import h5_index_path, write_h5_index
from sslight.data.sources.names import printable
from sslight.data.sources.source import Source, evenly_spread
from sslight.files import remove_partial_files, wait_for, write_whole

Format = Literal["h5", "tar"]

SHARD_BYTES = 2**28
"""Size of a shard if nothing else is asked for: large enough to read in one go, small enough to divide."""

FEWEST_SHARDS, SMALLEST_SHARD = 16, 1000
"""Small sets become up to so many shards of at least so many images, so that several processes have work."""

SAMPLE = 64  # Images prepared beforehand to estimate the room that is needed
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class PackResult:
    """A finished set: ``num_images`` stored in ``output``, ``num_reencoded`` of them made smaller.

    ``num_bytes`` counts the images without the container. ``bad_images`` were left out and are listed
    in ``bad_images_file``, which is None if there are none.
    """

    output: Path
    format: Format
    num_images: int
    num_classes: int | None
    num_reencoded: int
    num_bytes: int
    num_bad: int
    bad_images_file: Path | None


class Work:
    """The folder ``OUT.packing`` beside the output: what there is of it, and what is needed to go on."""

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f"{output.name}.packing")
        self.content, self.plan, self.done = (self.folder / name for name in ("content", "plan.json", "done"))

    @contextmanager
    def locked(self, number: int) -> Iterator[None]:
        """Only one process of a number at a time packs here. Raises ValueError."""
        with (self.folder / f"lock-{number}").open("w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"{self.folder} is being written by another process; wait for it to end") from None
            yield


def pack(
    source: Source,
    output: Path,
    *,
    format: Format,
    short_side: int | None = None,
    shard_images: int | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int = 0,
    task: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackResult:
    """Write the readable images of ``source`` into ``output``: an H5 file, or a folder of tar shards.

    All work happens in ``OUT.packing``, which becomes ``output`` when it is complete; with tar the same call goes on
    with the shards that an earlier one left there. Images whose shorter side is above ``short_side`` px are made
    smaller (see ``reencode``); all others keep their bytes; those of more than ``max_pixels`` are unreadable.
    ``progress`` is told how many images are done, and of how many.

    ``task`` is the number of this process and how many write one set of tar shards together: each writes every n-th
    shard, and the first waits for the others and finishes; it writes itself what no process has added to for ten
    minutes. The others give what was done when they had ended.

    Raises ValueError, before any work, if ``output`` exists, if the folder holds other work, if no image is readable
    or there is too little room; OSError if the disk fills up or cannot be written.
    """
    number, count = task
    if count > 1 and format != "tar":
        raise ValueError(f"format={format} is written by one process, and {count} were started: use format=tar")
    work = Work(output)
    _refuse_existing(output, work)
    plan = _plan(source, format, short_side, max_pixels)
    if number:
        wait_for([work.plan], "plan")  # of the first process, which sees what there is room for
    earlier = json.loads(work.plan.read_text(encoding="utf-8")) if work.plan.exists() else None
    if earlier is not None and earlier["format"] == "tar":
        plan = _agreed_plan(work, earlier, plan, shard_images)
    else:
        if earlier is None and any(path.is_file() for path in work.folder.rglob("*")):
            raise ValueError(f"{work.folder} is in the way and was not made by this command: move it")
        plan["shard_images"] = _look_ahead(source, output, plan, shard_images)
        work.done.mkdir(parents=True, exist_ok=True)
        write_whole(work.plan, json.dumps(plan))
    tally = Tally()

    def add(image: Stored | BadImage) -> None:
        tally.count(image)
        if tally.num_images % CHUNK == 0 or tally.num_images == len(source):
            progress(tally.num_images, len(source))

    with work.locked(number):
        try:
            for shard in finished_shards(work.done).values():
                tally.add(shard)
            progress(tally.num_images, len(source))
            if count == 1:  # nobody else writes here
                remove_partial_files(work.content)
            _write(source, work, plan, workers, add, task)
            if number:
                return _result(source, output, plan, tally, None)
            if count > 1:
                num_shards = -(-len(source) // plan["shard_images"])
                wait_for([finished_file(work.done, shard) for shard in range(num_shards)], "shard")
                _write(source, work, plan, workers, add, (0, 1))
                tally = Tally()
                for shard in finished_shards(work.done).values():
                    tally.add(shard)
            return _finish(source, output, work, plan, tally)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            text = (
                f"the disk is full after {tally.num_images:,} of {len(source):,} images; free some space and run the "
                f"same command again: it {'continues' if format == 'tar' else 'starts over'}"
            )
            raise OSError(error.errno, text, str(output)) from error
        finally:
            if format == "h5":
                shutil.rmtree(work.folder, ignore_errors=True)


def _write(
    source: Source,
    work: Work,
    plan: dict[str, Any],
    workers: int,
    count: Callable[[Stored | BadImage], None],
    task: tuple[int, int],
) -> None:
    ready = partial(prepare, source, plan["short_side"], plan["max_pixels"])
    if plan["format"] == "h5":
        with closing(prepared_images(ready, range(len(source)), workers=workers)) as images:
            write_h5(source, work.content, images, count)
        return
    if work.content.is_file():  # of an H5 file that was never finished
        work.content.unlink()
    work.content.mkdir(exist_ok=True)
    size = plan["shard_images"]
    write_shards(source, work.content, work.done, ready, images_per_shard=size, workers=workers, count=count, task=task)


def _refuse_existing(output: Path, work: Work) -> None:
    if output.exists() or output.is_symlink():
        if work.plan.exists() and not work.content.exists():
            shutil.rmtree(work.folder)  # stopped between the last two steps
        raise ValueError(f"{output} exists and will not be replaced: choose another name, or remove it")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{output} cannot be written: there is no folder {output.parent}")


def _plan(source: Source, format: Format, short_side: int | None, max_pixels: int) -> dict[str, Any]:
    """What must be the same for the work to go on."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        name = source.name(index)
        if any(part in ("", "..") or part.startswith(".") for part in name.split("/")):
            raise ValueError(f"{printable(name)} cannot be packed: a part of its name is empty or starts with a dot")
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    if source.labels is not None:
        digest.update(source.labels.tobytes())
    plan = {"format": format, "short_side": short_side, "max_pixels": max_pixels}
    return {**plan, "num_images": len(source), "names": digest.hexdigest()}


def _agreed_plan(work: Work, earlier: dict[str, Any], plan: dict[str, Any], shard_images: int | None) -> dict[str, Any]:
    asked = plan | ({} if shard_images is None else {"shard_images": shard_images})
    changed = {key: value for key, value in asked.items() if earlier.get(key) != value}
    if changed:
        was = ", ".join(f"{key} was {earlier.get(key)} and is now {value}" for key, value in changed.items())
        raise ValueError(
            f"{work.folder} holds an unfinished packing with other settings ({was}); use the same, or remove it"
        )
    return earlier


def _look_ahead(source: Source, output: Path, plan: dict[str, Any], shard_images: int | None) -> int:
    """Images in a shard, from a sample of the images. Raises ValueError if none is readable or they do not fit."""
    indices = evenly_spread(len(source), SAMPLE).tolist()
    images = [image for _, image in prepare(source, plan["short_side"], plan["max_pixels"], indices)]
    sizes = [len(image.encoded) for image in images if not isinstance(image, BadImage)]
    if not sizes:
        raise ValueError(no_readable_image([image for image in images if isinstance(image, BadImage)], setting="IN"))
    folder = output.absolute().parent
    each = sum(sizes) / len(sizes) + (H5_BYTES if plan["format"] == "h5" else TAR_BYTES)
    needed, free = each * len(source), shutil.disk_usage(folder).free
    if 0.9 * needed > free:  # a tenth for the chance of the sample
        raise ValueError(
            f"{output} needs about {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB free; "
            "free some space, choose another disk, or set a smaller short_side"
        )
    if shard_images is not None:
        return shard_images
    by_bytes = max(1, int(SHARD_BYTES / each))
    return min(by_bytes, max(SMALLEST_SHARD, -(-len(source) // FEWEST_SHARDS)))


def _finish(source: Source, output: Path, work: Work, plan: dict[str, Any], tally: Tally) -> PackResult:
    bad = sorted(tally.bad, key=lambda image: image.index)
    if not tally.num_stored:
        raise ValueError(no_readable_image(bad, setting="IN"))
    is_tar = plan["format"] == "tar"
    if is_tar:
        write_shard_list(work.content, work.done, source.classes)
    # Read as a training run will read it: whatever is wrong with it shows here.
    packed = build_source([str(work.content)], labeled=False, setting="OUT")
    assert len(packed) == tally.num_stored
    listed = output / "bad_images.csv" if is_tar else output.with_name(f"{output.name}.bad_images.csv")
    if bad:
        write_bad_images(work.content / listed.name if is_tar else listed, bad)
    if not is_tar:
        write_h5_index(work.content)
        h5_index_path(work.content).replace(h5_index_path(output))
    if output.exists():
        raise ValueError(
            f"{output} was created in the meantime and will not be replaced: move it and run the command again"
        )
    if is_tar:
        remove_partial_files(work.content)  # of a slow process, whose shards another one has written
    work.content.replace(output)
    shutil.rmtree(work.folder, ignore_errors=True)  # in which that process may still write
    return _result(source, output, plan, tally, listed if bad else None)


def _result(source: Source, output: Path, plan: dict[str, Any], tally: Tally, listed: Path | None) -> PackResult:
    return PackResult(
        output=output,
        format=plan["format"],
        num_images=tally.num_stored,
        num_classes=None if source.classes is None else len(source.classes),
        num_reencoded=tally.num_reencoded,
        num_bytes=tally.num_bytes,
        num_bad=len(tally.bad),
        bad_images_file=listed,
    )
