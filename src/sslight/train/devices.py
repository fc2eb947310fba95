"""Devices, processes and precision, through Lightning Fabric."""

import os
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from timm.layers import convert_sync_batchnorm
from torch import nn

from sslight.config import DetectSettings, EvaluateSettings, PretrainSettings
from sslight.train.advice import counted

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Placement:
    """Where the processes of a run are: ``cpu`` or ``cuda``, processes a node, nodes."""

    accelerator: str
    processes_per_node: int
    num_nodes: int

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.processes_per_node * self.num_nodes


def place(devices: str) -> Placement:
    """Where to train, from the setting ``devices`` and from torchrun's or SLURM's environment.

    Raises:
        ValueError: a GPU is asked for where there is none, or more than there are.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if devices.isdigit() and int(devices) > gpus:
        found = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "no GPU"
        raise ValueError(
            f"devices={devices}, but this machine has {found} that PyTorch can use: set devices=cpu or auto."
        )
    if devices == "gpu" and not gpus:
        raise ValueError("devices=gpu, but this machine has no GPU that PyTorch can use: set devices=cpu or auto.")
    accelerator = "cpu" if devices == "cpu" or not gpus else "cuda"
    launched = _launched()
    if launched is not None:
        world_size, per_node = launched
        if accelerator == "cuda" and per_node > gpus:
            raise ValueError(
                f"{per_node} processes were started on a machine with {gpus} GPUs: "
                "start one process a GPU, or set devices=cpu."
            )
        return Placement(accelerator, per_node, world_size // per_node)
    if accelerator == "cpu":
        return Placement("cpu", 1, 1)
    return Placement("cuda", int(devices) if devices.isdigit() else gpus, 1)


def _launched() -> tuple[int, int] | None:
    """(processes, processes a node) if torchrun or srun started this process."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        return int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
    if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        tasks, nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", "1"))
        return tasks, max(1, tasks // nodes)
    return None


def build_fabric(settings: PretrainSettings | DetectSettings | EvaluateSettings, placement: Placement) -> Fabric:
    """Fabric for these settings, not yet launched.

    Raises:
        ValueError: half precision with a loss scale, or compilation, is asked for on a CPU.
    """
    if settings.precision == "16" and placement.accelerator == "cpu":
        raise ValueError("precision=16 needs a GPU: set precision=bf16 or 32.")
    if isinstance(settings, PretrainSettings) and settings.compile and compilation_gains_nothing(placement):
        raise ValueError("compile=true gains nothing on a CPU: leave it out, or train on a GPU.")
    return Fabric(
        accelerator=placement.accelerator,
        devices=placement.processes_per_node,
        num_nodes=placement.num_nodes,
        strategy="ddp" if placement.world_size > 1 else "auto",
        precision=_PRECISIONS[settings.precision],  # type: ignore[arg-type]
    )


def compilation_gains_nothing(placement: Placement) -> bool:
    """Whether torch.compile only costs time: on a CPU the convolutions count, which it leaves as they are."""
    return placement.accelerator == "cpu"


def batch_size_per_process(settings: PretrainSettings, world_size: int) -> int:
    """The share of the global batch that one process has.

    Raises:
        ValueError: the batch does not divide among the processes and accumulated parts, or a part has one image.
    """
    parts = world_size * settings.accumulate
    size = settings.batch_size
    if size % parts:
        nearest = " and ".join(str(n) for n in (size // parts * parts, (size // parts + 1) * parts) if n)
        raise ValueError(
            f"batch_size={size} does not divide by {world_size} processes × accumulate={settings.accumulate}: "
            f"the nearest sizes are {nearest}."
        )
    if size // parts < 2:
        raise ValueError(
            f"batch_size={size} leaves one image for each of {world_size} processes × "
            f"accumulate={settings.accumulate}: batch normalisation needs two; set batch_size={2 * parts} or more."
        )
    return size // world_size


def synchronize_batch_norm(module: nn.Module, fabric: Fabric) -> None:
    """Let batch norm layers inside ``module`` take their statistics over all processes, where these have GPUs."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        convert_sync_batchnorm(module)  # timm's: torch's own drops the activation in BatchNormAct2d


def placement_line(fabric: Fabric, *, workers: int, cores: int) -> str:
    """Where this run computes, for its first line."""
    on_gpu = fabric.device.type == "cuda"
    device = torch.cuda.get_device_name(fabric.device) if on_gpu else f"{torch.get_num_threads()} CPU threads"
    processes = "" if fabric.world_size == 1 else f"{fabric.world_size} processes, each with "
    return f"training with {processes}{device} and {counted(workers)} that load images; {cores} cores for both"
