"""What a run folder accepts, refuses and keeps."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sslight.config import PretrainSettings, load_recipe
from sslight.data import BadImage, write_bad_images
from sslight.train import RunFolder

Settings = Callable[..., PretrainSettings]


def test_a_new_folder_holds_settings_and_environment(tiny: Settings, tmp_path: Path) -> None:
    run, settings = RunFolder(tmp_path / "a" / "b"), tiny()
    run.check(settings)
    assert not run.path.exists()
    run.create(settings)
    assert load_recipe(str(run.config)) == settings
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    assert environment["cpu_cores"] >= 1
    assert {"torch", "timm", "numba"} <= environment["packages"].keys()


def test_resume_accepts_other_machines_and_refuses_other_mathematics(tiny: Settings, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(tiny())
    run.last_checkpoint.touch()
    run.check(tiny(resume=True, workers=3, log_every=7, checkpoint__every_steps=2))
    with pytest.raises(ValueError, match=r"lr was 0\.48 and is now 0\.2; views\.flip_prob was 0\.5 and is now 0\.0"):
        run.check(tiny(resume=True, lr=0.2, views__flip_prob=0.0))


def test_two_processes_never_write_the_same_run(tiny: Settings, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    held = "import fcntl; f = open('.lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", held], cwd=run.path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="is being written by another process or an open notebook: let it end"):
            run.create(tiny())
        assert not run.config.exists()
        other.communicate("\n")
    run.create(tiny())
    tries = "import fcntl; fcntl.lockf(open('.lock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    other_run = subprocess.run([sys.executable, "-c", tries], cwd=run.path, stderr=subprocess.PIPE, check=False)
    assert other_run.returncode
    assert b"BlockingIOError" in other_run.stderr


def test_metrics_after_a_checkpoint_are_dropped_with_a_line_cut_short(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (10, 20, 30):
        run.append(run.metrics, {"step": step, "loss": 1.0})
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 40, "lo')
    run.drop_metrics_after(20)
    assert [json.loads(line)["step"] for line in run.metrics.read_text(encoding="utf-8").splitlines()] == [10, 20]


def test_bad_images_are_a_table(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    bad = BadImage(index=3, name='odd, "name".jpg', location="x", reason="truncated", count=2)
    write_bad_images(run.bad_images, [bad])
    assert run.bad_images.read_text(encoding="utf-8") == 'index,name,reason,count\n3,"odd, ""name"".jpg",truncated,2\n'


def test_what_a_killed_write_left_is_removed_when_the_run_goes_on(tiny: Settings, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(tiny())
    (run.checkpoints / "last-1.pt").touch()
    (run.checkpoints / ".last.pt.4242.partial").touch()
    settings = tiny(resume=True)
    run.check(settings)
    run.create(settings)
    assert [path.name for path in run.checkpoints.iterdir()] == ["last-1.pt"]


def test_auto_starts_continues_and_starts_again_what_was_killed_before_its_first_checkpoint(
    tiny: Settings, tmp_path: Path
) -> None:
    run, settings = RunFolder(tmp_path / "run"), tiny(resume="auto")
    run.check(settings)
    assert not run.continues
    run.create(settings)
    run.append(run.metrics, {"step": 1})
    (run.path / ".environment.json.123.partial").touch()

    again = RunFolder(run.path)
    again.check(settings)
    assert not again.continues
    again.create(settings)
    assert not again.metrics.exists()

    again.last_checkpoint.touch()
    third = RunFolder(run.path)
    third.check(settings)
    assert third.continues


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_auto_overwrites_neither_a_run_of_other_settings_nor_anything_else(
    tiny: Settings, tmp_path: Path, has_checkpoint: bool
) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(tiny(lr=0.2))
    if has_checkpoint:
        run.last_checkpoint.touch()
    another = "with init_from=" if has_checkpoint else "in another folder"  # which needs no weights
    with pytest.raises(ValueError, match=rf"resume=auto continues .* lr was 0\.2 and is now 0\.48.* run {another}\.$"):
        RunFolder(run.path).check(tiny(resume="auto"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "uv.lock").touch()  # no lock of a run
    with pytest.raises(ValueError, match="mine is not empty: choose a new or an empty folder"):
        RunFolder(tmp_path / "mine").check(tiny(resume="auto"))


def test_a_folder_that_a_kill_left_before_its_settings_were_written_counts_as_empty(
    tiny: Settings, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / ".config.yaml.123.partial").touch()
    run.check(tiny())
    run.create(tiny())
    assert load_recipe(str(run.config)) == tiny()
