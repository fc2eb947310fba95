"""Whole runs on a disk that fills up."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslight.train import load_checkpoint
from tests.conftest import TINY
from tests.data.detection_files import coco_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux"
    ),
]

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB: a checkpoint is 4.6 MB, two are kept and one is being written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mount refuses: {mounted.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def start(output: Path, **changes: object) -> subprocess.Popen[str]:
    settings = TINY | {"output": output, "logger": "tensorboard", "checkpoint.every_steps": 5}
    settings |= {"checkpoint.every_epochs": "null", **changes}
    words = ["pretrain", "dino_cnn_sslight_64", *(f"{key}={value}" for key, value in settings.items())]
    return subprocess.Popen(
        [sys.executable, "-m", "sslight", *words],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def fill(disk: Path) -> None:
    """Take all room that is left."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_a_run_goes_on_over_a_full_disk_and_saves_when_there_is_room_again(small_disk: Path) -> None:
    run = small_disk / "run"
    process = start(run, steps=1500)
    wait_for(run / "checkpoints" / "last-1.pt", process)
    fill(small_disk)
    time.sleep(3)
    assert process.poll() is None
    step = load_checkpoint(run / "checkpoints" / "last.pt")["step"]
    (small_disk / "filler").unlink()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "last.pt was not written" in errors
    assert "The run goes on." in errors
    assert "Traceback" not in errors
    assert 5 <= step < 1500
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 1500


def test_a_run_that_ends_on_a_full_disk_says_so_and_goes_on_from_its_last_checkpoint(small_disk: Path) -> None:
    run = small_disk / "run"
    process = start(run, steps=300)
    wait_for(run / "checkpoints" / "last-1.pt", process)
    fill(small_disk)
    _, errors = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert "the checkpoint before it is intact" in errors
    step = load_checkpoint(run / "checkpoints" / "last.pt")["step"]
    assert 5 <= step < 300
    (small_disk / "filler").unlink()
    process = start(run, steps=300, resume="true")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 300


def test_a_detector_goes_on_over_a_full_disk_and_saves_when_there_is_room_again(
    small_disk: Path, tmp_path: Path
) -> None:
    run, data = small_disk / "run", coco_folder(tmp_path / "coco")
    program = [sys.executable, "-m", "tests.evaluate.detection.runs", str(data), str(run), "3000", "5"]
    process = subprocess.Popen(program, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(run / "checkpoints" / "last-1.pt", process)
    fill(small_disk)
    time.sleep(2)
    assert process.poll() is None
    step = load_checkpoint(run / "checkpoints" / "last.pt")["step"]
    (small_disk / "filler").unlink()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "was not written" in errors
    assert "Traceback" not in errors
    assert 5 <= step < 3000
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 3000
