"""Memory that runs out is a sentence, and nothing is lost that a checkpoint holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings
from sslight.methods.dino import DINO
from sslight.train import load_checkpoint
from sslight.train.machine.memory import OutOfMemory, memory_in_words

TOO_MUCH = 2**50


def on_cpu() -> None:
    torch.empty(TOO_MUCH, dtype=torch.uint8)


def in_python() -> None:
    raise MemoryError


def on_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("happens", [on_cpu, in_python, on_gpu])
def test_each_kind_is_told_once_with_what_was_done_and_the_peak(happens: Callable[[], None]) -> None:
    words = r"ran out of memory in step 3 \(this process had [\d,]+ MiB at most\): try less\.$"
    outer = memory_in_words(torch.device("cpu"), lambda: "all", lambda: "nothing.")
    with (
        pytest.raises(OutOfMemory, match=words),
        outer,
        memory_in_words(torch.device("cpu"), lambda: "step 3", lambda: "try less."),
    ):
        happens()


def test_other_errors_stay_as_they_are() -> None:
    inside = memory_in_words(torch.device("cpu"), lambda: "", lambda: "")
    with pytest.raises(RuntimeError, match="shapes differ") as caught, inside:
        raise RuntimeError("shapes differ")
    assert not isinstance(caught.value, OutOfMemory)


def test_a_run_names_the_settings_that_need_less_and_keeps_its_checkpoint(
    tiny: Callable[..., PretrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = DINO.forward
    calls: list[int] = []

    def grows(self: DINO, *views: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            on_cpu()
        return forward(self, *views)

    monkeypatch.setattr(DINO, "forward", grows)
    with pytest.raises(OutOfMemory) as caught:
        run_pretraining(tiny(checkpoint__every_steps=1))
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert "the machine ran out of memory in step 3 (loss) (this process had" in str(caught.value)
    assert "try, in this order, a smaller batch_size, or the same one in accumulate=2 parts, grad_checkpointing" in str(
        caught.value
    )
    assert f"; {last} holds the run so far, and resume=true goes on from it." in str(caught.value)
    assert load_checkpoint(last)["step"] == 2
    monkeypatch.setattr(DINO, "forward", forward)
    assert run_pretraining(tiny(resume=True, grad_checkpointing=True)).training.steps == 4
