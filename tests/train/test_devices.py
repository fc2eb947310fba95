"""Where processes are placed."""

from collections.abc import Callable

import pytest
import torch

from sslight.config import PretrainSettings
from sslight.train import batch_size_per_process, build_fabric, place
from sslight.train.devices import Placement

Settings = Callable[..., PretrainSettings]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)

    def have(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return have


@pytest.mark.parametrize(
    ("number", "devices", "expected"),
    [
        (0, "auto", Placement("cpu", 1, 1)),
        (4, "auto", Placement("cuda", 4, 1)),
        (4, "gpu", Placement("cuda", 4, 1)),
        (4, "2", Placement("cuda", 2, 1)),
        (4, "cpu", Placement("cpu", 1, 1)),
    ],
)
def test_devices_follow_the_setting_and_the_machine(
    gpus: Callable[[int], None], number: int, devices: str, expected: Placement
) -> None:
    gpus(number)
    assert place(devices) == expected


def test_more_gpus_than_there_are_is_refused(gpus: Callable[[int], None]) -> None:
    gpus(2)
    with pytest.raises(ValueError, match="devices=3, but this machine has 2 GPUs"):
        place("3")


def test_torchrun_gives_the_number_of_processes(gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert place("auto") == Placement("cpu", 4, 2)
    gpus(2)
    with pytest.raises(ValueError, match="4 processes were started on a machine with 2 GPUs"):
        place("auto")


def test_slurm_gives_the_number_of_processes(gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(4)
    for name, value in {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert place("auto") == Placement("cuda", 4, 2)


def test_a_batch_that_does_not_divide_names_the_nearest_sizes(tiny: Settings) -> None:
    assert batch_size_per_process(tiny(batch_size=24, accumulate=3), 2) == 12
    with pytest.raises(ValueError, match=r"batch_size=25 does not divide.*nearest sizes are 24 and 30"):
        batch_size_per_process(tiny(batch_size=25, accumulate=3), 2)
    with pytest.raises(ValueError, match=r"leaves one image.*set batch_size=8 or more"):
        batch_size_per_process(tiny(batch_size=4), 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "16"}, "precision=16 needs a GPU: set precision=bf16 or 32."),
        ({"compile": True}, "compile=true gains nothing on a CPU: leave it out, or train on a GPU."),
    ],
)
def test_what_only_a_gpu_can_do_is_refused_on_a_cpu(tiny: Settings, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_fabric(tiny(**changes), Placement("cpu", 1, 1))
