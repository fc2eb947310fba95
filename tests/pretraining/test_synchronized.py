"""Less memory with batch norms over all processes: the same run."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sslight.api.pretrain import run_pretraining
from sslight.pretraining import task
from sslight.train.record.checkpoints import load_checkpoint
from tests.conftest import tiny_settings
from tests.pretraining.synchronized import convert
from tests.processes import in_two

MODES: dict[str, Any] = {"false": False, "true": True, "norms": "norms"}


def one_of_two(folder: str) -> None:
    task.synchronize_batch_norm = lambda model, fabric: convert(model)  # type: ignore[attr-defined, assignment]
    for name, mode in MODES.items():
        settings = tiny_settings(
            output=f"{folder}/{name}", backbone="test_efficientnet", steps=2, grad_checkpointing=mode
        )
        run_pretraining(settings)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("synchronized")
    in_two(one_of_two, str(folder))
    return {name: load_checkpoint(Path(folder) / name / "checkpoints" / "last.pt")["model"] for name in MODES}


@pytest.mark.parametrize("name", ["true", "norms"])
def test_batches_are_counted_once_and_weights_are_the_same(
    name: str, states: dict[str, dict[str, torch.Tensor]]
) -> None:
    counted = {key: int(value) for key, value in states["false"].items() if key.endswith("num_batches_tracked")}
    assert len(counted) > 20
    assert {key: int(states[name][key]) for key in counted} == counted
    for key, value in states["false"].items():
        if key.endswith(("running_mean", "running_var", "weight", "bias")):
            torch.testing.assert_close(states[name][key], value, rtol=1e-3, atol=1e-5, msg=key)
