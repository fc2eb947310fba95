"""The memory of a run, predicted before its first step, and what makes it fit."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sslight.backbones.recomputing import pack, pack_largest, unpack
from sslight.config import PretrainSettings
from sslight.methods import Method, build_method, save_memory
from sslight.pretraining.plan import Choice
from sslight.pretraining.schedule import RunLength, values_at
from sslight.pretraining.sizes import Machine
from sslight.train import Placement
from sslight.train.machine.distributed import gathered
from sslight.train.machine.memory import free_memory

_SURELY = 0.85  # of a prediction is needed in any case
_MOST_FOR_A_PIXEL = 16_000  # bytes kept for a view's pixel: 1,600 in MobileNetV2, 9,000 in a ViT with patches of 4 px
_NOTHING_FITS = "not even 2 images fit: use smaller views (views.global_size) or a smaller backbone"
_PARTS = range(32, 4096)  # images: smaller ones have noisy batch statistics

# What a process had beyond the tensors that are counted here: benchmarks/results/plan.md.
_RUNTIME = 170 << 20  # code and caches of the libraries that a first step loads
_HEAP = 1.3  # memory for each byte that is kept for the backward pass: gaps, and what operations need on the way
_LEAN_HEAP = 1.1  # the same where whole blocks of layers are computed again, and large memory goes back at once

Mode = bool | Literal["norms", "auto"]
"""What ``grad_checkpointing`` may be; ``auto`` is counted as false."""

_OPTIMIZER_STATES = {"lars": 1, "muon": 1, "sgd": 1, "adamw": 2}
_BATCHES = (2, 4)
_BUFFERS = 5  # batches that the loader holds and fills


@dataclass(frozen=True)
class Memory:
    """What a process needs, in bytes: whatever the batch, and for each image of a part of it.

    ``norms`` is ``per_image`` with grad_checkpointing=norms, ``lean`` with true, or None if the network has no such
    mode. ``buffered`` are an image's views in the loader's buffers.
    """

    fixed: float
    per_image: float
    norms: float
    lean: float | None
    buffered: float

    @property
    def modes(self) -> list[Mode]:
        """Those of grad_checkpointing that the network has, the fastest first."""
        return [False, "norms"] if self.lean is None else [False, "norms", True]

    @property
    def leanest(self) -> Mode:
        """The one that needs least for an image."""
        return min(self.modes, key=lambda mode: self.peak(1, mode=mode))

    def peak(self, images: int, *, accumulate: int = 1, mode: Mode = False) -> float:
        """With so many images a step in this process."""
        each = {"norms": self.norms, True: self.lean or self.per_image}.get(mode, self.per_image)
        return self.fixed + (each + self.buffered) * images / accumulate


def predict_memory(settings: PretrainSettings, device: str) -> Memory:
    """Count what the forward passes of two small batches keep for the backward pass, on the CPU for any ``device``.

    PyTorch's random stream is left as it was.
    """
    views = settings.views
    pixels = views.num_global * views.global_size**2 + views.num_local * views.local_size**2
    small, large = (_Kept(settings, device, images, False) for images in _BATCHES)
    slope = (large.bytes - small.bytes) / (_BATCHES[1] - _BATCHES[0])
    once, lean = max(0.0, small.bytes - _BATCHES[0] * slope), None
    norms = (_Kept(settings, device, _BATCHES[1], "norms").bytes - once) / _BATCHES[1]
    try:
        again = _Kept(settings, device, _BATCHES[1], True)
        largest_part = max(large.inside[name] for name in again.computed_again)
        lean = (again.bytes - once + 2 * largest_part) / _BATCHES[1]  # its activations, and their gradients
    except ValueError:  # the network has no such mode
        pass
    inputs = 4 * 3 * pixels
    return Memory(
        fixed=_RUNTIME + large.state + once,
        per_image=_HEAP * slope + inputs,
        norms=_HEAP * min(norms, slope) + inputs,
        lean=None if lean is None else _LEAN_HEAP * min(lean, slope) + inputs,
        buffered=3.0 * pixels * _BUFFERS,
    )


def check_memory(settings: PretrainSettings, device: str, processes: int, free: int) -> None:
    """Refuse a run that cannot fit into the ``free`` bytes of each of its processes.

    Raises:
        ValueError: with the largest batch that does.
    """
    views, share = settings.views, settings.batch_size // processes
    pixels = views.num_global * views.global_size**2 + views.num_local * views.local_size**2
    if share // settings.accumulate * pixels * _MOST_FOR_A_PIXEL < free:
        return  # whatever the network; counting takes seconds
    memory = predict_memory(settings, device)
    if _SURELY * memory.peak(share, accumulate=settings.accumulate, mode=settings.grad_checkpointing) > free:
        mode: Mode = settings.grad_checkpointing
        needed = _needed(memory, free, settings.batch_size, processes, settings.accumulate, mode)
        raise ValueError(f"{needed}: {_smaller(memory, free, processes, settings)}.")


def flops_per_image(settings: PretrainSettings) -> float | None:
    """Arithmetic of a step for each of its images, forward and backward, counted on the CPU in a second or two.

    None where that fails: assignments that processes share over GPUs alone cannot be shared here.
    """
    images, settings = 2, settings.model_copy(update={"grad_checkpointing": False})
    values = values_at(0, settings, RunLength(1, 1))
    with torch.random.fork_rng(devices=[]):
        method = build_method(settings, "cuda")
        global_views, local_views = _blank_views(settings, images)
        method.begin_step(values)
        try:
            with FlopCounterMode(display=False) as counter:
                method(global_views, local_views, values)
        except (RuntimeError, ValueError):
            return None
    # The backward pass takes twice the forward pass of the trained network (PaLM, appendix B); PyTorch would count
    # that of depth-wise convolutions as if each channel met all others.
    trained = next(name for name, part in method.named_children() if method.backbone in part.modules())
    of_trained = counter.get_flop_counts()[f"{type(method).__name__}.{trained}"]
    return float(counter.get_total_flops() + 2 * sum(of_trained.values())) / images


def _blank_views(settings: PretrainSettings, images: int) -> tuple[Tensor, Tensor | None]:
    views = settings.views
    global_views, local_views = (
        torch.rand(number * images, 3, side, side).to(memory_format=torch.channels_last)
        for number, side in ((views.num_global, views.global_size), (views.num_local, views.local_size))
    )
    return global_views, local_views if views.num_local else None


class _Kept:
    """What a step on ``images`` blank images keeps: in all, and by the module that computes it.

    Attributes:
        state: Bytes of weights, buffers, gradients and the optimizer's state.
        bytes: That the forward pass keeps for the backward pass, besides them.
        inside: The same by module.
        computed_again: The modules that checkpointing runs once more in the backward pass.
    """

    def __init__(self, settings: PretrainSettings, device: str, images: int, mode: Mode) -> None:
        settings = settings.model_copy(update={"grad_checkpointing": mode})
        self.bytes, self.inside, self.computed_again = 0, dict[str, int](), set[str]()
        with torch.random.fork_rng(devices=[]):
            method = build_method(settings, device)
            method.to(memory_format=torch.channels_last)
            own = [*method.parameters(), *method.buffers()]
            trained = sum(p.nbytes for p in method.parameters() if p.requires_grad)
            self.state = sum(t.nbytes for t in own) + (1 + _OPTIMIZER_STATES[settings.optim.name]) * trained
            self._known = {t.untyped_storage().data_ptr() for t in own}
            for name, module in next(iter(method.networks.values())).named_modules():
                self._watch(name, module)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision != "32"):
                self._step(settings, method, images)

    def _step(self, settings: PretrainSettings, method: Any, images: int) -> None:
        values = values_at(0, settings, RunLength(1, 1))
        global_views, local_views = _blank_views(settings, images)
        method.begin_step(values)
        ways: dict[Mode, Callable[[Tensor], Any]] = {False: pack_largest, "norms": pack, True: lambda tensor: tensor}
        self._pack = ways[settings.grad_checkpointing]
        with torch.autograd.graph.saved_tensors_hooks(self._keep, unpack):
            loss = method(global_views, local_views, values).loss
        if settings.grad_checkpointing is True:
            loss.backward()

    def _keep(self, tensor: Tensor) -> Any:
        kept = self._pack(tensor)
        if not isinstance(kept, Tensor):
            return kept
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:  # kept alive by the graph, so no other storage gets its address
            self._known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return kept

    def _watch(self, name: str, module: nn.Module) -> None:
        before = [0]

        def begin(*_: Any) -> None:
            if torch._C._current_graph_task_id() != -1:  # a backward pass is under way
                self.computed_again.add(name)
            before[0] = self.bytes

        def end(*_: Any) -> None:
            self.inside[name] = max(self.inside.get(name, 0), self.bytes - before[0])

        module.register_forward_pre_hook(begin)
        module.register_forward_hook(end)


def usable(mode: Mode) -> float:
    """Share of the free memory that a run may be counted to need."""
    return 0.8 if mode is True else 0.9  # a small ViT with checkpointing took 10 % more: benchmarks/results/plan.md


def largest_batch(memory: Memory, free: float, mode: Mode = False) -> int:
    """Most images that a process can have in a step without parts; 0 or less if not even one."""
    one, two = (memory.peak(images, mode=mode) for images in (1, 2))
    return math.floor((usable(mode) * free - 2 * one + two) / (two - one))


def fit(memory: Memory, machine: Machine, batch: int, given: Mapping[str, Any]) -> dict[str, Choice]:
    """Batch, parts and checkpointing with which a run fits into free memory, as far as they must change.

    First a smaller batch, then parts of it, then checkpointing, and batches below 64 last.

    Raises:
        ValueError: nothing that is not ``given`` makes it fit.
    """
    processes, share = machine.processes, batch // machine.processes
    usual, parts = _given_mode(given), given.get("accumulate", 1)
    found = _first_that_fits(memory, machine, share, given)
    if found is None:
        needed = _needed(memory, machine.memory, batch, processes, parts, usual)
        raise ValueError(f"{needed}: {_left_out(memory, machine, share, given)}.")
    before = {"batch_size": batch, "accumulate": parts, "grad_checkpointing": usual}
    need, free = memory.peak(share, accumulate=parts, mode=usual) / 2**30, machine.memory / 2**30
    why = f"{share} images need {need:,.1f} GiB, and {free:,.1f} are free"
    return {name: Choice(name, value, why) for name, value in found.items() if value != before[name]}


def _first_that_fits(memory: Memory, machine: Machine, share: int, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first of the attempts of :func:`fit`, of which a process has ``share`` images or fewer."""
    usual, parts = _given_mode(given), given.get("accumulate", 1)
    smaller = [share] if "batch_size" in given else [s for n in range(12) if (s := share >> n) >= min(share, 64)]
    tiny = [] if "batch_size" in given else [s for s in (32, 16, 8, 4, 2) if s < share]
    modes = [usual]
    if given.get("grad_checkpointing", "auto") == "auto":
        modes = _modes(memory, compiled=bool(given.get("compile")))
    attempts: list[tuple[int, int, Mode]] = []
    for mode in modes:
        attempts += [(images, parts, mode) for images in smaller if images // parts >= 2]
        if "accumulate" not in given:
            attempts += [(smaller[-1], n, mode) for n in (2, 4, 8, 16, 32) if smaller[-1] / n in _PARTS]
    attempts += [(images, parts, mode) for images in tiny for mode in modes if images // parts >= 2]
    for images, n, mode in attempts:
        if memory.peak(images, accumulate=n, mode=mode) <= usable(mode) * machine.memory:
            return {"batch_size": images * machine.processes, "accumulate": n, "grad_checkpointing": mode}
    return None


def _modes(memory: Memory, *, compiled: bool) -> list[Mode]:
    """Those that do something; compiled backbones compute norms again as they are."""
    return [mode for mode in memory.modes if not (compiled and mode == "norms")]


def _given_mode(given: Mapping[str, Any]) -> Mode:
    mode: Mode = given.get("grad_checkpointing", False)
    return False if mode == "auto" else mode


def lightest_that_fits(settings: PretrainSettings, device: str, processes: int, free: int) -> Choice:
    """``grad_checkpointing`` for ``auto``: the fastest of its modes with which the run fits, or the leanest.

    ``free`` are the bytes that each process can take.
    """
    memory, share = predict_memory(settings, device), settings.batch_size // processes
    needs = {mode: memory.peak(share, accumulate=settings.accumulate, mode=mode) for mode in memory.modes}
    mode = next((mode for mode, need in needs.items() if need <= usable(mode) * free), memory.leanest)
    with_it, without, there = (size / 2**30 for size in (needs[mode], needs[False], free))
    because = f"{with_it:,.1f} GiB are needed with it, {without:,.1f} without, {there:,.1f} are free"
    return Choice("grad_checkpointing", mode, because)


def lightened(settings: PretrainSettings, placement: Placement, fabric: Fabric, method: Method) -> PretrainSettings:
    """``grad_checkpointing=auto`` as what fits into every process's free memory, which the new ``method`` then does."""
    if settings.grad_checkpointing != "auto":
        return settings
    free = min(gathered(free_for_each(placement, fabric.device)))
    choice = lightest_that_fits(settings, fabric.device.type, placement.world_size, free)
    if fabric.is_global_zero:
        print(f"grad_checkpointing={str(choice.value).lower()}: {choice.because}", file=sys.stderr)
    settings = settings.model_copy(update={"grad_checkpointing": choice.value})
    save_memory(method, settings)
    return settings


def free_for_each(placement: Placement, device: torch.device) -> int:
    """Bytes that each process can still take."""
    free = free_memory(device)
    return free // placement.processes_per_node if device.type == "cpu" else free  # which processes share


# ---- What to do about a run that does not fit ------------------------------------------------------------------


def _needed(memory: Memory, free: int, batch: int, processes: int, parts: int, mode: Mode) -> str:
    need, there = memory.peak(batch // processes, accumulate=parts, mode=mode) / 2**30, free / 2**30
    return f"batch_size={batch} needs about {need:,.1f} GiB of memory in each process, and {there:,.1f} GiB are free"


def _left_out(memory: Memory, machine: Machine, share: int, given: Mapping[str, Any]) -> str:
    """The fewest of the ``given`` settings without which :func:`fit` finds something."""
    names = [name for name in ("batch_size", "grad_checkpointing", "accumulate", "compile") if name in given]
    for ways in (combinations(names, number) for number in range(1, len(names) + 1)):
        for left in ways:
            others = {name: value for name, value in given.items() if name not in left}
            if _first_that_fits(memory, machine, share, others) is not None:
                return f"leave out {' and '.join(left)}, so that what fits is chosen"
    return _NOTHING_FITS


def _smaller(memory: Memory, free: int, processes: int, settings: PretrainSettings) -> str:
    """The batches that fit, as the settings are and with the checkpointing that allows the largest."""
    usual = _given_mode({"grad_checkpointing": settings.grad_checkpointing})
    modes = _modes(memory, compiled=bool(settings.compile))
    least = max(modes, key=lambda mode: largest_batch(memory, free, mode))
    as_it_is, lean = (
        _batch_of_at_most(largest_batch(memory, free, mode), processes, settings) for mode in (usual, least)
    )
    fits = "the largest that fits" + " and divides moco.queue_size" * (settings.method == "moco")
    mode = f"grad_checkpointing={str(least).lower()}"
    if lean is None:
        return _NOTHING_FITS
    if lean == settings.batch_size:
        remedy = f"set {mode}" + ("" if as_it_is is None else f", or batch_size={as_it_is}, the largest without it")
    elif as_it_is is None:
        remedy = f"set {mode} and batch_size={lean}, {fits}"
    else:
        remedy = f"set batch_size={as_it_is}, {fits}"
        remedy += f", or up to {lean} with {mode}" if lean > as_it_is else ""
    return f"{remedy}; `sslight plan IMAGES` finds settings that fit"


def _batch_of_at_most(most: int, processes: int, settings: PretrainSettings) -> int | None:
    """The largest that is allowed and no larger than the batch now, with so many images in a part; None without any."""
    parts = processes * settings.accumulate
    sizes = [parts * images for images in range(min(most, settings.batch_size // parts), 1, -1)]
    queue = settings.moco.queue_size if settings.method == "moco" else 0
    return next((size for size in sizes if queue % size == 0), sizes[0] if sizes else None)
