"""Functions of the user's that a run calls."""

import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

import sslight
from sslight.api.pretrain import PretrainResult, run_pretraining
from sslight.config import PretrainSettings

Settings = Callable[..., PretrainSettings]


def test_callbacks_get_the_lines_of_the_metrics_the_epochs_and_the_result(tiny: Settings) -> None:
    logged: list[dict[str, object]] = []
    epochs: list[tuple[int, float]] = []
    results: list[PretrainResult] = []
    callback = sslight.Callback(
        on_log=lambda step, figures: logged.append({"step": step, **figures}),
        on_epoch_end=lambda epoch, figures: epochs.append((epoch, figures["knn_top1"])),
        on_end=results.append,
    )
    result = run_pretraining(tiny(steps=7, data__val=["synthetic:20:val"]), [callback])
    lines = (result.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert logged == [json.loads(line) for line in lines]
    assert epochs == [(int(m["step"]) // 6, m["knn_top1"]) for m in result.training.measurements[1:]]
    assert results == [result]
    assert result.backbone.is_file()


@pytest.mark.parametrize("at", ["log", "epoch"])
def test_true_ends_a_run_as_at_its_last_step_and_resume_goes_on(tiny: Settings, at: str) -> None:
    ended: list[int] = []

    def log(step: int, figures: Mapping[str, float | str]) -> object:
        return at == "log" and step == 5

    callback = sslight.Callback(
        on_log=log,
        on_epoch_end=lambda epoch, figures: at == "epoch" and epoch == 0,
        on_end=lambda result: ended.append(result.training.steps),
    )
    result = run_pretraining(tiny(steps=9, data__val=["synthetic:20:val"]), [callback])
    assert ended == [6]
    assert result.training.measurements[-1]["step"] == 6
    assert sslight.load_backbone(result.backbone)
    assert run_pretraining(tiny(steps=9, resume=True, data__val=["synthetic:20:val"])).training.steps == 9


def test_answers_other_than_true_end_nothing(tiny: Settings) -> None:
    callback = sslight.Callback(on_log=lambda step, figures: 1.5, on_epoch_end=lambda epoch, figures: "words")
    assert run_pretraining(tiny(), [callback]).training.steps == 4


def test_an_error_of_a_callback_is_the_users(tiny: Settings) -> None:
    callback = sslight.Callback(on_log=lambda step, figures: figures["no such figure"])
    with pytest.raises(KeyError, match="no such figure"):
        run_pretraining(tiny(), [callback])


def test_a_result_shows_itself_as_a_page_in_a_frame(tiny: Settings) -> None:
    shown = run_pretraining(tiny())._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "Finished: 4 steps" in shown
    assert "curve: " in shown


def test_answers_that_are_not_true_end_nothing(tiny: Settings) -> None:
    answers = iter([1, 1.0, np.ones(3), torch.ones(3)])
    callback = sslight.Callback(on_log=lambda step, figures: next(answers, None))
    assert run_pretraining(tiny(steps=4), [callback]).training.steps == 4
