"""The wheel that `make wheel` builds works where nothing else of this repository is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = [path for path in sys.path if path.endswith("site-packages")]


def run(*words: str | Path, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_takes_the_first_steps_of_the_quickstart(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "src", clone / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, clone, folder=tmp_path)
    (wheel,) = tmp_path.glob("sslight-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as content:
        packed = {name for name in content.namelist() if name.startswith("sslight/")}
    there = {str(path.relative_to(clone / "src")) for path in (clone / "src/sslight").rglob("*") if path.is_file()}
    assert packed == there

    run(sys.executable, "-m", "venv", "--without-pip", "fresh", folder=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, folder=tmp_path)
    (own,) = (tmp_path / "fresh" / "lib").glob("python*/site-packages")
    (own / "heavy.pth").write_text("\n".join(HEAVY), encoding="utf-8")  # torch and the like, from here
    place = run(python, "-c", "import sslight; print(sslight.__file__)", folder=tmp_path)
    assert Path(place.strip()).is_relative_to(own)
    sslight = python.with_name("sslight")
    assert "dino_cnn_sslight" in run(sslight, "recipes", folder=tmp_path)
    small = ["data.train=synthetic:40", "data.val=synthetic:20:val", "batch_size=8", "views.num_local=1", "devices=cpu"]
    small += ["steps=2", "epochs=null", "optim.warmup_epochs=0", "workers=0", "backbone=test_resnet", "output=run"]
    assert "kNN accuracy" in run(sslight, "pretrain", "quickstart", *small, folder=tmp_path)
    run(sslight, "report", "run", "images=0", folder=tmp_path)
    assert "prefers-color-scheme: dark" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
