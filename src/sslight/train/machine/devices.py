"""Devices, processes and precision, through Lightning Fabric."""

import logging
import os
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from sslight.backbones import bf16_is_fast_on_cpu
from sslight.config import DetectSettings, PretrainSettings
from sslight.train.machine.advice import counted
from sslight.train.task import RunSettings

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces precision and ranks

_LARGEST_STEP = 0xFFFF_FFF0
"""SLURM counts the steps of srun up to it; numbers above are the batch script, the shell of salloc and others."""

_MEETING_TIME = timedelta(minutes=1)

_TF32 = (8, 0)
"""The compute capability from which on a GPU has TF32."""

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Placement:
    """Where the processes of a run are: ``cpu`` or ``cuda``, processes per node, nodes."""

    accelerator: str
    processes_per_node: int
    num_nodes: int

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.processes_per_node * self.num_nodes


def place(devices: str) -> Placement:
    """Where to train, from the setting ``devices`` and the environment of torchrun or SLURM.

    Raises ValueError if a GPU is requested and there is none, or more than there are.
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
    world_size, nodes, launcher = _launched()
    if launcher:
        if world_size % nodes or (devices.isdigit() and world_size > 1 and int(devices) != world_size // nodes):
            raise ValueError(
                f"devices={devices}, but {launcher} started {world_size} processes on {nodes} machine"
                f"{'s' if nodes > 1 else ''}, and each computes on one device: leave devices out, and start one "
                "process per device."
            )
        if accelerator == "cuda" and world_size // nodes > gpus:
            raise ValueError(
                f"{world_size // nodes} processes were started on a machine with {gpus} GPUs: "
                "start one process per GPU and let each see all GPUs, or set devices=cpu."
            )
        return Placement(accelerator, world_size // nodes, nodes)
    if accelerator == "cpu":
        return Placement("cpu", 1, 1)
    return Placement("cuda", int(devices) if devices.isdigit() else gpus, 1)


def _launched() -> tuple[int, int, str]:
    """Processes, machines, and what started them: torchrun, srun or nothing."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        world_size = int(environment["WORLD_SIZE"])
        return world_size, world_size // int(environment["LOCAL_WORLD_SIZE"]), "torchrun"
    step = environment.get("SLURM_STEP_ID", "")
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
    # In a shell of srun --pty the variables are those of a task, but the command was typed once.
    in_a_shell = "SLURM_PTY_PORT" in environment and any(os.isatty(number) for number in (0, 1, 2))
    if step.isdecimal() and int(step) <= _LARGEST_STEP and tasks > 1 and not in_a_shell:
        nodes = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or "1"
        return tasks, int(nodes), "srun"
    return 1, 1, ""


@dataclass(frozen=True)
class Share:
    """One of several processes that torchrun or srun started for a command that each does a part of, without talking.

    ``number`` counts all processes, from 0; ``local_number`` those of this machine, of which there are ``local_count``.
    """

    number: int = 0
    count: int = 1
    local_number: int = 0
    local_count: int = 1


ONLY_ONE = Share()


def own_share() -> Share:
    """Which process of how many this one is, by torchrun's or SLURM's variables; the first of one without them."""
    count, machines, launcher = _launched()
    if not launcher:
        return ONLY_ONE
    number, local = ("RANK", "LOCAL_RANK") if launcher == "torchrun" else ("SLURM_PROCID", "SLURM_LOCALID")
    return Share(int(os.environ[number]), count, int(os.environ.get(local, "0")), max(1, count // machines))


def launcher() -> str:
    """What started the processes of this command: ``torchrun``, ``srun`` or nothing (empty)."""
    return _launched()[2]


class _Srun(SLURMEnvironment):
    """The tasks that srun started. Lightning's own class refuses ``--ntasks`` and compares the job's tasks with the
    step's.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST") or "127.0.0.1"
        os.environ.setdefault("MASTER_ADDR", self.resolve_root_node_address(nodes))
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_used() -> None:
        pass

    @staticmethod
    def _validate_srun_variables() -> None:
        pass

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """They are those of the placement."""

    def world_size(self) -> int:
        """Tasks of this step."""
        return self._placement.world_size

    def meet(self) -> None:
        """Connect all tasks. Raises ValueError after a minute; torch would wait for half an hour."""
        rank, size, on_gpu = self.global_rank(), self.world_size(), self._placement.accelerator == "cuda"
        text = f"waiting for the other {size - 1} tasks that srun starts, at most {_MEETING_TIME.seconds} s"
        patience = threading.Timer(5, lambda: print(f"sslight: {text}", file=sys.stderr, flush=True))
        patience.start()
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]
                self.main_address, self.main_port, size, rank == 0, timeout=_MEETING_TIME
            )
        except (dist.DistError, RuntimeError) as error:
            raise ValueError(
                f"not all of the {size} tasks of this SLURM step came within {_MEETING_TIME.seconds} s: let srun start "
                "the command once for each (`srun sslight ...`), or ask for one task; MASTER_ADDR and MASTER_PORT "
                f"({self.main_address}:{self.main_port}) must be free and reachable."
            ) from error
        finally:
            patience.cancel()
        store.set_timeout(dist.default_pg_timeout)
        device = torch.device("cuda", self.local_rank()) if on_gpu else None
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, device_id=device)


def _cluster(placement: Placement) -> ClusterEnvironment:
    """What tells Fabric about the other processes: only those that :func:`place` recognized."""
    match _launched()[2]:
        case "torchrun":
            return TorchElasticEnvironment()
        case "srun" if placement.world_size > 1:
            cluster = _Srun(placement)
            if not dist.is_initialized():
                cluster.meet()
            return cluster
        case _:
            return LightningEnvironment()


def build_fabric(settings: RunSettings, placement: Placement) -> Fabric:
    """Fabric for these settings, not yet launched.

    Raises ValueError for ``precision=16`` or ``compile=true`` on a CPU.
    """
    if settings.precision == "16" and placement.accelerator == "cpu":
        raise ValueError("precision=16 needs a GPU: set precision=bf16 or 32.")
    if isinstance(settings, PretrainSettings) and settings.compile and compilation_gains_nothing(placement):
        raise ValueError("compile=true gains nothing on a CPU: leave it out, or train on a GPU.")
    if placement.accelerator == "cuda":
        choose_kernels(settings)
    known = signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch before 2.14
    own_buffers: dict[str, Any] = {buffers: False}
    return Fabric(
        accelerator=placement.accelerator,
        devices=placement.processes_per_node,
        num_nodes=placement.num_nodes,
        # Buffers are the same everywhere or each process's own; agree_on_buffers evens them out where they are read.
        strategy=DDPStrategy(gradient_as_bucket_view=True, **own_buffers) if placement.world_size > 1 else "auto",
        precision=_PRECISIONS[settings.precision],  # type: ignore[arg-type]
        plugins=_cluster(placement),
    )


def fast_precision(accelerator: str) -> tuple[str, str]:
    """The fastest precision of ``cpu`` or ``cuda`` here, and why."""
    fast = bf16_is_fast_on_cpu()
    if accelerator == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "fast on this device") if fast else ("16", "this GPU has no bf16")
    return ("bf16", "fast on this device") if fast else ("32", "bf16 is slow on this processor")


def with_precision(settings: PretrainSettings, placement: Placement) -> tuple[PretrainSettings, str]:
    """Replace ``precision=auto`` by the fastest on this device, with a sentence that says so."""
    if settings.precision != "auto":
        return settings, ""
    precision, because = fast_precision(placement.accelerator)
    return settings.model_copy(update={"precision": precision}), f"precision={precision}: {because}"


def choose_kernels(settings: RunSettings) -> None:
    """Let cuDNN try its convolutions if shapes stay the same; use TF32 for float32 products beside half precision."""
    torch.backends.cudnn.benchmark = not isinstance(settings, DetectSettings)  # its images have all sizes
    torch.set_float32_matmul_precision("highest" if settings.precision == "32" else "high")


def compilation_gains_nothing(placement: Placement) -> bool:
    """Whether torch.compile only costs time: on a CPU, most time is in convolutions, which it does not change."""
    return placement.accelerator == "cpu"


def check_compilation(settings: PretrainSettings, placement: Placement, backbone: nn.Module) -> None:
    """Raise ValueError if a compiled graph would be cut at each synchronized batch norm."""
    several_gpus = placement.accelerator == "cuda" and placement.world_size > 1
    norms = sum(isinstance(module, _BatchNorm) for module in backbone.modules())
    if settings.compile and several_gpus and norms:
        raise ValueError(
            f"compile={str(settings.compile).lower()} with backbone={settings.backbone} on several GPUs: each "
            f"of its {norms} batch norms waits for the other GPUs and would cut the compiled graph: leave compile out, "
            "use one GPU, or choose a network without batch norm, such as vit_tiny."
        )


def batch_size_per_process(settings: PretrainSettings, world_size: int) -> int:
    """The share of the global batch that one process has.

    Raises ValueError if it does not divide among processes and accumulated parts, or a part has one image.
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
            f"accumulate={settings.accumulate}: batch normalization needs two; set batch_size={2 * parts} or more."
        )
    return size // world_size


def synchronize_batch_norm(module: nn.Module, fabric: Fabric) -> None:
    """Let the batch norms in ``module`` use the statistics of all processes, on GPUs."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        convert_sync_batchnorm(module)  # timm's: torch's own drops the activation in BatchNormAct2d


def placement_line(fabric: Fabric, *, workers: int, cores: int) -> str:
    """The first line of a run: where it runs, and what started it."""
    on_gpu = fabric.device.type == "cuda"
    threads = torch.get_num_threads()
    device = f"{threads} CPU thread{'s' * (threads > 1)}"
    if on_gpu:
        device = torch.cuda.get_device_name(fabric.device)
        if torch.cuda.get_device_capability(fabric.device) >= _TF32:
            highest = torch.get_float32_matmul_precision() == "highest"
            device += f" (float32 convolutions{'' if highest else ' and products'} in TF32)"
    processes = "" if fabric.world_size == 1 else f"{fabric.world_size} processes, each with "
    launcher, tasks = _launched()[2], os.environ.get("SLURM_NTASKS", "1")
    started = f"; started by {launcher}" if launcher else ""
    if not launcher and tasks != "1":
        started = f"; this SLURM job has {tasks} tasks, but this is one process: `srun sslight ...` starts them all"
    return f"training with {processes}{device} and {counted(workers)} loading images; {cores} cores for both{started}"
