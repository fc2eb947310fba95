"""Checkpoints are whole, plain and exact."""

import os
import pickle
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from sslight.train import load_checkpoint
from sslight.train.checkpoints import random_state, restore_random_state, save_checkpoint


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"step": 2, "trap": lambda: None})
    assert load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


class Trap:
    """Would make a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path, trap = tmp_path / "last.pt", tmp_path / "trap"
    torch.save({"format": "sslight-checkpoint", "step": Trap(trap)}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"step": 1}, protocol=2)])
def test_a_damaged_or_foreign_file_ends_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.pt") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_truncated_checkpoint_ends_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(path)


def test_all_random_streams_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002

    save_checkpoint(tmp_path / "last.pt", {"random": random_state()})
    expected = draw()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    assert draw() != expected
    restore_random_state(load_checkpoint(tmp_path / "last.pt")["random"])
    assert draw() == expected


def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a disk with that much left
        with pytest.raises(OSError, match="the checkpoint before it is intact"):
            save_checkpoint(path, {"step": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]
