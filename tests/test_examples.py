"""The SLURM script as it stands, with programs in the place of srun and scontrol that do what SLURM would."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.test_processes import ENVIRONMENT, words
from tests.train.test_restarts import RUN, TWO_HERE, assert_same_run, command, finished, steps

SCRIPT = Path(__file__).parents[1] / "examples" / "slurm.sh"

SRUN = """#!{python}
import os, signal, subprocess, sys
ids = []
for rank in (0, 1):
    there = dict(os.environ, SLURM_STEP_ID="0", SLURM_PROCID=str(rank), SLURM_LOCALID="0", SLURM_NODEID=str(rank))
    ids.append(subprocess.Popen([{python!r}, "-m", *sys.argv[2:]], env=there))
signal.signal(signal.SIGUSR1, lambda number, frame: [process.send_signal(number) for process in ids])
sys.exit(any([process.wait() for process in ids]))
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """What a job of two nodes with one process each sees."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "srun": SRUN.format(python=sys.executable),
        "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol\n',
    }.items():
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ENVIRONMENT | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "sslight",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "127.0.0.[1-2]",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "RECIPE": "dino_cnn_sslight_64",
        "OUTPUT": str(tmp_path / "run"),
        "TRAIN": str(RUN["data.train"]),
    }


@pytest.mark.slow
def test_the_slurm_script_requeues_a_warned_job_which_then_ends_as_an_uninterrupted_one(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    given = ("data.train=", "output=", "resume=")
    settings = [word for word in words(output, "dino", **RUN)[2:] if not word.startswith(given)]
    with (tmp_path / "printed").open("w") as printed:
        job = subprocess.Popen(["bash", str(SCRIPT), *settings], env=slurm, stdout=printed, stderr=printed)
        while steps(output) <= 12:
            assert job.poll() is None, (tmp_path / "printed").read_text(encoding="utf-8")
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=300) != 0
        assert (tmp_path / "scontrol").read_text(encoding="utf-8") == "requeue 4711\n"
        job = subprocess.Popen(["bash", str(SCRIPT), *settings], env=slurm, stdout=printed, stderr=printed)
        assert job.wait(timeout=500) == 0, (tmp_path / "printed").read_text(encoding="utf-8")
    assert (tmp_path / "scontrol").read_text(encoding="utf-8") == "requeue 4711\n"
    finished(command(tmp_path / "uninterrupted", *TWO_HERE))
    assert_same_run(tmp_path / "uninterrupted", output)
