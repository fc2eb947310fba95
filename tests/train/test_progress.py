"""What people read while a run trains."""

import pytest

from sslight.train import duration
from sslight.train.progress import TrainingProgress


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (462, "7:42"), (11262, "3:07:42")])
def test_durations_have_hours_only_where_there_are_any(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_file_gets_lines_with_the_time_left_by_the_pace_after_the_first_step(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("sslight.train.progress.time.monotonic", lambda: clock[0])
    with TrainingProgress(total_steps=100, first_step=0, num_epochs=4, shown=True) as shown:
        clock[0] = 60.0  # compiling
        shown.update(step=1, epoch=0, figures="loss 3.000")
        clock[0] = 80.0
        shown.update(step=21, epoch=0, figures="loss 2.000")
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "epoch 1/4 · step 1/100 · loss 3.000",
        "epoch 1/4 · step 21/100 · loss 2.000 · 1:19 left",
    ]


def test_other_processes_than_the_first_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(total_steps=10, first_step=0, num_epochs=1, shown=False) as shown:
        shown.update(step=1, epoch=0, figures="loss 3.000")
        shown.say("words")
    assert capfd.readouterr().err == ""
