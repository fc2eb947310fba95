"""Checkpoints: the whole state of a run in one file that loads with ``weights_only=True``."""

import copy
import errno
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sslight.backbones import CHECKPOINT_FORMAT, load_plain
from sslight.files import whole_file

LAST = "last.pt"


# ---- One file -----------------------------------------------------------------------------------------------


def save_checkpoint(path: Path, state: Mapping[str, Any], *, keep_last: int = 1) -> None:
    """Write ``state`` (tensors and plain data) to ``path``, completely or not at all.

    The file is a ZIP archive with a CRC-32 for every record, which :func:`load_checkpoint` checks. Of the earlier
    files, ``keep_last - 1`` are kept as ``NAME-1.pt`` (the newest), ``NAME-2.pt`` and so on. Raises OSError if it
    cannot be written; the earlier file is then intact.
    """
    try:
        with whole_file(path, "wb", before_rename=lambda: _shift(path, keep_last)) as file:
            torch.save({"format": CHECKPOINT_FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        reason = getattr(error, "strerror", None) or "the disk may be full"
        kept = "; the checkpoint before it is intact" if path.exists() else ""
        raise OSError(errno.EIO, f"{reason}{kept}", str(path)) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote, on the CPU; nothing in the file is executed.

    Raises ValueError if it is damaged or not a checkpoint of this program, OSError if it cannot be read at all.
    """
    try:
        # Not mapped: optimizers keep the tensors they are given, and this file may be removed while they live.
        state = load_plain(path, mapped=False)  # refuses what is compressed, so that the next line ends soon
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the checksums
        if damaged is not None:
            raise ValueError(f"the checksum of its record {damaged} is wrong")
    except OSError:
        raise
    except Exception as error:  # zipfile, too, raises nearly every type on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason}): use another one.") from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this program.")
    return state


# ---- The files of a run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The newest intact checkpoint of a run, and a sentence about each newer one that is ``damaged``."""

    path: Path
    state: dict[str, Any]
    damaged: dict[Path, str]

    def set_damaged_aside(self) -> None:
        """Rename the damaged files to ``NAME.damaged``, so that the next write does not keep one in place of an intact
        one.
        """
        for path in self.damaged:
            path.replace(path.with_name(f"{path.name}.damaged"))


def kept_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder from which a run can continue, newest first."""
    earlier = sorted(folder.glob("last-*.pt"), key=lambda path: (len(path.name), path.name))
    epochs = sorted(folder.glob("epoch_*.pt"), reverse=True)
    last = folder / LAST
    return [*([last] if last.is_file() else []), *earlier, *epochs]


def load_newest(folder: Path) -> LoadedCheckpoint:
    """The newest intact checkpoint in ``folder``.

    Raises ValueError if there is none, OSError if one cannot be read at all.
    """
    damaged: dict[Path, str] = {}
    for path in kept_checkpoints(folder):
        try:
            return LoadedCheckpoint(path, load_checkpoint(path), damaged)
        except ValueError as error:
            damaged[path] = str(error)
    if not damaged:
        raise ValueError(f"there is no checkpoint in {folder}: start a new run in another folder.")
    raise ValueError(f"no checkpoint in {folder} is intact: {' '.join(damaged.values())}")


class CheckpointWriter:
    """Writes the checkpoints of a run while training continues.

    :meth:`write` copies the state to host memory and returns; a thread does the rest. A failed write leaves the earlier
    files in place and is reported by :meth:`failure`; training may continue and try again.
    """

    def __init__(self, folder: Path, *, keep_last: int) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._underway: Future[None] | None = None

    def write(self, state: Mapping[str, Any], *, also_as: Sequence[str] = ()) -> None:
        """Start writing ``state`` as ``last.pt`` and as ``also_as``.

        Waits for the write before it; ask for its :meth:`failure` first.
        """
        assert self._underway is None
        self._underway = self._thread.submit(self._write, _on_host(state), tuple(also_as))

    def failure(self, *, wait: bool) -> OSError | None:
        """Why the write failed, once; None if it did not, or if it is not done and ``wait`` is false."""
        underway = self._underway
        if underway is None or not (wait or underway.done()):
            return None
        self._underway = None
        try:
            underway.result()
        except OSError as error:
            return error
        return None

    def finish(self, fabric: Fabric) -> None:
        """Wait, in all processes, for the write in the first one. Raises OSError there if it failed."""
        failure = self.failure(wait=True)
        fabric.barrier()  # or the end of the others could take the first process along in mid-write
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Wait for the write and end the thread."""
        self._thread.shutdown(wait=True)

    def _write(self, state: Mapping[str, Any], also_as: tuple[str, ...]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)  # someone may have tidied up
        last = self._folder / LAST
        save_checkpoint(last, state, keep_last=self._keep_last)
        for name in also_as:
            _give_name(last, self._folder / name)


def _shift(path: Path, keep_last: int) -> None:
    """Rename ``path`` to ``NAME-1.pt``, that to ``NAME-2.pt`` and so on; ``keep_last - 1`` are kept."""
    names = [path, *(path.with_stem(f"{path.stem}-{age}") for age in range(1, keep_last))]
    num_files = len(list(takewhile(Path.exists, names)))  # beyond the first gap nothing need move
    for newer, older in reversed(list(pairwise(names[: num_files + 1]))):
        newer.replace(older)


def _give_name(file: Path, name: Path) -> None:
    """A second name for a file that never changes in place; a copy where the file system has no links."""
    partial = name.with_name(f".{name.name}.{os.getpid()}.partial")
    try:
        try:
            partial.hardlink_to(file)
        except OSError:
            shutil.copyfile(file, partial)
        partial.replace(name)
    finally:
        partial.unlink(missing_ok=True)


def _on_host(value: Any) -> Any:
    """``value`` with copies of its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # with the attribute in which a state_dict has its versions
        for key, entry in value.items():
            copied[key] = _on_host(entry)
        return copied
    if isinstance(value, list | tuple):
        return type(value)(_on_host(entry) for entry in value)
    return value
