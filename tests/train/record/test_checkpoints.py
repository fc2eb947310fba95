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
from sslight.train.record.checkpoints import (
    CheckpointWriter,
    load_newest,
    save_checkpoint,
)
from sslight.train.run_state import random_state, restore_random_state


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


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    weights = torch.randn(300, generator=torch.Generator().manual_seed(0))
    save_checkpoint(path, {"step": 7, "weights": weights})
    intact = path.read_bytes()
    draws = np.random.default_rng(0)
    noticed = 0
    for position in draws.integers(len(intact), size=300):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << int(draws.integers(8))
        path.write_bytes(damaged)
        try:
            state = load_checkpoint(path)
        except ValueError:
            noticed += 1
        else:  # a byte that carries nothing: padding between records, a date
            assert state["step"] == 7
            assert torch.equal(state["weights"], weights)
    assert noticed > 150


def test_the_newest_intact_checkpoint_is_taken_with_a_sentence_on_the_others(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path / "last.pt", {"step": step}, keep_last=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-1.pt", "last-2.pt", "last.pt"]
    newest = load_newest(tmp_path)
    assert (newest.path.name, newest.state["step"], newest.damaged) == ("last.pt", 4, {})

    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:-200])
    fallback = load_newest(tmp_path)
    assert (fallback.path.name, fallback.state["step"]) == ("last-1.pt", 3)
    (sentence,) = fallback.damaged.values()
    assert "last.pt cannot be read" in sentence

    fallback.set_damaged_aside()
    save_checkpoint(tmp_path / "last.pt", {"step": 5}, keep_last=3)
    assert [load_checkpoint(tmp_path / name)["step"] for name in ("last.pt", "last-1.pt")] == [5, 3]
    (tmp_path / "last.pt").unlink()  # as after a kill between the two renames of a write
    assert load_newest(tmp_path).state["step"] == 3
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is intact"):
        load_newest(tmp_path)
    with pytest.raises(ValueError, match=r"there is no checkpoint in"):
        load_newest(tmp_path / "none")


def test_the_writer_takes_a_copy_and_tells_of_a_failure_once(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "checkpoints", keep_last=2)
    weights = torch.zeros(1000)
    writer.write({"weights": weights}, also_as=["epoch_0001.pt"])
    weights += 1  # training goes on
    assert writer.failure(wait=True) is None
    for name in ("last.pt", "epoch_0001.pt"):
        assert not load_checkpoint(tmp_path / "checkpoints" / name)["weights"].any()

    (tmp_path / "checkpoints").rename(tmp_path / "gone")
    (tmp_path / "checkpoints").touch()  # nothing can be written below a file
    writer.write({"weights": weights})
    assert isinstance(writer.failure(wait=True), OSError)
    assert writer.failure(wait=True) is None
    (tmp_path / "checkpoints").unlink()
    writer.write({"weights": weights})
    assert writer.failure(wait=True) is None
    writer.close()
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["weights"].all()


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


def test_a_loaded_state_does_not_hang_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.ones(10_000)})
    weights = load_checkpoint(path)["weights"]
    with path.open("r+b") as file:  # as where a file on a network disk is gone or replaced
        file.truncate(100)
    assert weights.sum() == 10_000
