"""What people read while a run trains."""

import pytest

from sslight.train import duration
from sslight.train.record.progress import Progress


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (462, "7:42"), (11262, "3:07:42")])
def test_durations_have_hours_only_where_there_are_any(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_file_gets_lines_with_the_time_left_by_the_pace_after_the_first_step(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("sslight.train.record.progress.time.monotonic", lambda: clock[0])
    with Progress(shown=True) as shown:
        shown.stage("starting", 100, unit="step")
        clock[0] = 60.0  # compiling
        shown.update(1, name="epoch 1/4", figures="loss 3.000")
        clock[0] = 80.0
        shown.update(21, figures="loss 2.000")
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "epoch 1/4 · step 1/100 · loss 3.000",
        "epoch 1/4 · step 21/100 · loss 2.000 · 1:19 left",
    ]


def test_other_processes_than_the_first_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(shown=False) as shown:
        shown.stage("starting", 10)
        shown.update(1, figures="loss 3.000")
        shown.say("words")
    assert capfd.readouterr().err == ""
