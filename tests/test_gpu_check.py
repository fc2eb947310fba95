"""The check that a GPU needs, in small on whatever there is here, so that nothing in it is untried but the GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"
pytestmark = pytest.mark.slow


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), "--tiny", "--minutes", "30", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("words", [(), ("--two",)])
def test_every_check_is_well(words: tuple[str, ...], tmp_path: Path) -> None:
    done = check(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert all(found["ok"] and found["said"] for found in content["checks"].values())
    page = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert all(f"| {name} | well |" in page for name in content["checks"])


def test_a_check_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "memory" / "memory-False").mkdir(parents=True)
    (tmp_path / "memory" / "memory-False" / "config.yaml").write_text("{}")  # a run that is there already
    done = check(tmp_path, "--only", "memory", "waiting")
    assert done.returncode == 1
    page = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert "| memory | **not well** |" in page
    assert "| waiting | well |" in page
    assert "- **memory: ValueError: output=" in page
