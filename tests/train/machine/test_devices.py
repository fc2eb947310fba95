"""Where processes are placed."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning_fabric import Fabric

from sslight.backbones import build_backbone
from sslight.config import DetectSettings, PretrainSettings, build, load_recipe
from sslight.train import batch_size_per_process, build_fabric, place
from sslight.train.machine.devices import Placement, Share, check_compilation, choose_kernels, own_share, placement_line
from sslight.train.task import RunSettings

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
    ("settings", "benchmark", "products"),
    [
        (load_recipe("dino_cnn_sslight"), True, "highest"),
        (load_recipe("dino_cnn_sslight", {"precision": "bf16"}), True, "high"),
        (build(DetectSettings, {"precision": "16"}, model="timm:test_resnet"), False, "high"),
    ],
)
def test_kernels_for_a_gpu_follow_precision_and_shapes(
    settings: RunSettings, benchmark: bool, products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    try:
        choose_kernels(settings)
        assert torch.backends.cudnn.benchmark is benchmark
        assert torch.get_float32_matmul_precision() == products
    finally:
        torch.set_float32_matmul_precision(before)


def test_batch_norms_of_several_gpus_are_not_compiled() -> None:
    settings = load_recipe("dino_cnn_sslight", {"compile": True})
    eight = Placement("cuda", 8, 1)
    message = (
        r"^compile=true with backbone=mobilenet_v2 on several GPUs: each of its 52 batch norms waits for the other"
    )
    with pytest.raises(ValueError, match=message):
        check_compilation(settings, eight, build_backbone("mobilenet_v2"))
    check_compilation(settings, Placement("cuda", 1, 1), build_backbone("mobilenet_v2"))
    check_compilation(settings, eight, build_backbone("test_vit"))
    check_compilation(load_recipe("dino_cnn_sslight"), eight, build_backbone("test_resnet"))


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


SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_NODEID": "0"}
OTHERS = ("MASTER_ADDR", "SLURM_PTY_PORT", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_NTASKS_PER_NODE")


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, gpus: Callable[[int], None]) -> Callable[..., None]:
    gpus(0)
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)

    def have(**changes: str) -> None:
        for name, value in (SRUN | changes).items():
            monkeypatch.setenv(name, value)

    return have


def test_a_shell_of_srun_is_one_process(slurm: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(SLURM_PTY_PORT="4711")
    monkeypatch.setattr(os, "isatty", lambda number: number == 2)
    assert place("auto") == Placement("cpu", 1, 1)
    monkeypatch.setattr(os, "isatty", lambda number: False)  # srun typed in such a shell: its tasks have no terminal
    assert place("auto") == Placement("cpu", 2, 1)


@pytest.mark.parametrize("step", ["4294967290", "4294967291"])
def test_a_shell_of_salloc_and_a_batch_script_are_one_process(
    step: str, slurm: Callable[..., None], tiny: Settings
) -> None:
    slurm(SLURM_STEP_ID=step, SLURM_NTASKS="4", SLURM_JOB_NAME="interactive")
    assert place("auto") == Placement("cpu", 1, 1)
    fabric = build_fabric(tiny(), place("cpu"))
    assert fabric.world_size == 1
    line = placement_line(fabric, workers=1, cores=2)
    assert line.endswith("this SLURM job has 4 tasks, but this is one process: `srun sslight ...` starts them all")


def test_a_step_of_fewer_tasks_than_its_job_is_taken_as_it_is(slurm: Callable[..., None]) -> None:
    slurm(SLURM_NTASKS="8", SLURM_NNODES="4", SLURM_STEP_NUM_TASKS="4", SLURM_STEP_NUM_NODES="2")
    assert place("auto") == Placement("cpu", 2, 2)
    slurm(SLURM_STEP_NUM_TASKS="1", SLURM_STEP_NUM_NODES="1")
    assert place("auto") == Placement("cpu", 1, 1)


def test_devices_that_contradict_the_launcher_are_refused(
    slurm: Callable[..., None], gpus: Callable[[int], None]
) -> None:
    slurm()
    gpus(2)
    assert place("2") == Placement("cuda", 2, 1)
    with pytest.raises(ValueError, match="devices=1, but srun started 2 processes on 1 machine, and each"):
        place("1")
    slurm(SLURM_NTASKS="3", SLURM_NNODES="2")
    with pytest.raises(ValueError, match="devices=auto, but srun started 3 processes on 2 machines"):
        place("auto")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_tasks_that_do_not_come_are_missed_with_a_sentence_and_not_for_ever(
    rank: str, slurm: Callable[..., None], tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    slurm(SLURM_PROCID=rank, SLURM_LOCALID=rank, MASTER_PORT=str(port), MASTER_ADDR="127.0.0.1")
    monkeypatch.setattr("sslight.train.machine.devices._MEETING_TIME", timedelta(milliseconds=200))
    with pytest.raises(ValueError, match="not all of the 2 tasks of this SLURM step came within 0 s: let srun start"):
        build_fabric(tiny(), place("auto"))
    assert not torch.distributed.is_initialized()


TASK = """
import torch
from lightning_fabric import Fabric
from sslight.config import load_recipe
from sslight.train import build_fabric, place
fabric = build_fabric(load_recipe("quickstart"), place("auto"))
fabric.launch()
print(fabric.global_rank, fabric.world_size, int(fabric.all_reduce(torch.ones(1), reduce_op="sum")))
"""


@pytest.mark.slow
def test_two_tasks_of_srun_with_ntasks_alone_meet() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = dict(os.environ) | SRUN | {"MASTER_PORT": port, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TASK],
            env=common | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes] == ["0 2 2", "1 2 2"]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("capability", "said"), [((7, 5), False), ((8, 0), True), ((10, 0), True)])
def test_tf32_is_named_only_where_the_gpu_has_it(
    capability: tuple[int, int], said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    fabric = SimpleNamespace(device=torch.device("cuda"), world_size=1)
    line = placement_line(cast(Fabric, fabric), workers=1, cores=2)
    assert ("TF32" in line) == said


def test_lightning_announces_nothing(tiny: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    build_fabric(tiny(precision="bf16"), place("cpu"))
    assert capfd.readouterr().err == ""


TORCHRUN_OF_FOUR = {
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "3",
    "LOCAL_RANK": "1",
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Share(0, 1, 0, 1)),
        (TORCHRUN_OF_FOUR, Share(3, 4, 1, 2)),
        (
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"},
            Share(5, 6, 1, 2),
        ),
        (
            {"SLURM_STEP_ID": "4294967290", "SLURM_NTASKS": "6", "SLURM_PROCID": "0"},
            Share(0, 1, 0, 1),
        ),  # sbatch's script
    ],
)
def test_a_process_knows_its_share_by_the_variables_of_what_started_it(
    given: dict[str, str], expected: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert own_share() == expected
