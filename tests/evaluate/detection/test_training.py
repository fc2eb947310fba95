import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sslight.backbones.cpu import layers as cpu_layers
from sslight.train import TrainingStopped, load_checkpoint
from tests.data.detection_files import coco_folder
from tests.evaluate.detection.runs import FewWeights, run_few_weights
from tests.processes import in_two


def lines(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in {"images_per_second", "data_wait_share"}} for r in records]


def noisy(stop_at: int | None = None, number: signal.Signals = signal.SIGTERM) -> FewWeights:
    """A detector that draws random numbers and, at a step counted from 1, is sent a signal."""
    detector = FewWeights()
    detector.noise = 1.0
    calls = 0

    def send(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            os.kill(os.getpid(), number)

    detector.register_forward_hook(send)
    return detector


def test_a_run_stopped_in_mid_epoch_continues_bit_for_bit(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    _, whole = run_few_weights(data, tmp_path / "whole", total_steps=8, detector=noisy())
    with pytest.raises(TrainingStopped, match=r"stopped by SIGTERM after step 5 of 8; .* resume=true continues"):
        run_few_weights(data, tmp_path / "parts", total_steps=8, detector=noisy(stop_at=5))
    torch.rand(7)
    _, parts = run_few_weights(data, tmp_path / "parts", total_steps=8, detector=noisy(), resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_the_loss_falls_and_every_part_is_logged(tmp_path: Path) -> None:
    result, _ = run_few_weights(coco_folder(tmp_path / "coco"), tmp_path / "run", total_steps=30)
    records = lines(tmp_path / "run")
    assert [record["step"] for record in records] == list(range(1, 31))
    assert [record["epoch"] for record in records[:4]] == [0, 0, 0, 1]
    for record in records:
        assert record["loss"] == pytest.approx(record["loss_boxes"] + record["loss_numbers"])
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert result.metrics["loss"] == records[-1]["loss"]
    assert [record["lr"] for record in records[2:5]] == pytest.approx([0.5, 0.05, 0.05])


def test_boxes_are_trained_by_plain_l1(tmp_path: Path) -> None:
    class Smooth(FewWeights):
        def forward(
            self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]
        ) -> dict[str, torch.Tensor]:
            small = self.backbone(torch.full((2, 3), 0.01))
            self.l1 = float(small.detach().abs().mean())
            return {"loss_boxes": torch.nn.functional.smooth_l1_loss(small, torch.zeros_like(small), beta=1 / 9)}

    detector = Smooth()
    run_few_weights(coco_folder(tmp_path / "coco"), tmp_path / "run", total_steps=1, detector=detector)
    assert lines(tmp_path / "run")[0]["loss"] == pytest.approx(detector.l1)


def test_bf16_is_warned_of_where_the_processor_is_slow_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = coco_folder(tmp_path / "coco")
    for fast, warnings in ((False, 1), (True, 0)):
        for name in ("bf16_is_fast_on_cpu", "onednn_computes_bf16"):
            monkeypatch.setattr(cpu_layers, name, lambda fast=fast: fast)
        run_few_weights(data, tmp_path / f"fast {fast}", total_steps=2, precision="bf16")
        assert capsys.readouterr().err.count("precision=bf16 is several times slower than 32") == warnings


def test_a_complete_run_is_left_as_it_is(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    _, first = run_few_weights(data, tmp_path / "run", total_steps=3)
    before = (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes()
    result, second = run_few_weights(data, tmp_path / "run", total_steps=3, resume=True)
    assert result.metrics["loss"] == lines(tmp_path / "run")[-1]["loss"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes() == before


def spoiled(call_to_spoil: int) -> FewWeights:
    """A detector whose losses are not a number in one call, counted from 1."""
    detector = FewWeights()
    calls = 0

    def spoil(_module: object, _inputs: object, output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        return {name: value * (float("nan") if calls == call_to_spoil else 1) for name, value in output.items()}

    detector.register_forward_hook(spoil)
    return detector


def test_a_broken_loss_is_skipped_from_the_last_checkpoint_and_ends_a_run_that_has_none(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    result, _ = run_few_weights(
        data, tmp_path / "run", total_steps=6, detector=spoiled(4), checkpoint={"every_steps": 3}
    )
    assert result.steps == 6
    assert json.loads((tmp_path / "run" / "nonfinite.jsonl").read_text())["action"] == "skipped"
    assert [record["step"] for record in lines(tmp_path / "run")] == [1, 2, 3, 5, 6]
    with pytest.raises(TrainingStopped, match=r"the loss became nan at step 2 .*: start a new run with a lower lr"):
        run_few_weights(data, tmp_path / "other", total_steps=6, detector=spoiled(2))


def test_a_folder_with_a_run_is_not_overwritten_and_other_settings_do_not_resume(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    run_few_weights(data, tmp_path / "run", total_steps=2)
    with pytest.raises(ValueError, match="already holds a run: add resume=true"):
        run_few_weights(data, tmp_path / "run", total_steps=2)
    with pytest.raises(ValueError, match=r"weight_decay was 0.0001 and is now 0.1: leave these as they were"):
        run_few_weights(data, tmp_path / "run", total_steps=2, resume=True, weight_decay=0.1)


def test_a_checkpoint_of_another_detector_is_refused(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    run_few_weights(data, tmp_path / "run", total_steps=2)
    other = FewWeights()
    other.head = torch.nn.Linear(4, 6)
    with pytest.raises(ValueError, match="does not belong to this run"):
        run_few_weights(data, tmp_path / "run", total_steps=2, detector=other, resume=True)


def test_two_processes_train_as_one_with_the_same_global_batch(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "coco")
    run_few_weights(data, tmp_path / "one", total_steps=5)
    in_two(partial(run_few_weights, data, tmp_path / "two", total_steps=5, checkpoint={"every_steps": 5}))
    one, two = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["model"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert len(lines(tmp_path / "two")) == 5
