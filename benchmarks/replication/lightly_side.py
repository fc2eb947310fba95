"""The other side of the plan "cifar10": parts of the package lightly, put together as its CIFAR-10 benchmark states.

Heads, losses, transforms, data set, memory bank, split batch norm and momentum update are theirs; the settings are
those of their `cifar10_benchmark.py`. The loop around them is plain PyTorch.
"""

import copy
import importlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Views = list[Tensor]
_SPLITS = 8  # parts of a batch with batch-norm statistics of their own, in MoCo


@dataclass(frozen=True)
class Trained:
    """What a side's training gives: the backbone with plain batch norm, and its last loss."""

    backbone: nn.Module
    steps: int
    loss: float


@dataclass(frozen=True)
class _Side:
    """A method made of lightly's parts: what is optimised, and the loss of a batch of two views."""

    trained: nn.ModuleList
    followers: nn.ModuleList
    loss: Callable[[Views], Tensor]


def part(module: str) -> Any:
    """A module of lightly.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(f"lightly.{module}")
    except ImportError as error:
        raise ValueError(
            f"code: lightly needs the package lightly ({error}): install it beside sslight in an environment of "
            f"your own with `pip install lightly`; without it the queue passes by such runs."
        ) from None


def train_lightly(
    method: str,
    backbone: nn.Module,
    train: Path,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    workers: int,
    device: str,
) -> Trained:
    """Train ``backbone`` (its weights change) on the images of ``train``.

    The rate falls along a cosine by step, as on the other side; their benchmark lowers it by epoch.

    Raises:
        ValueError: lightly is missing, the sizes do not fit, or the loss became non-finite.
    """
    plain = {key: value.shape for key, value in backbone.state_dict().items()}
    side = _side(method, backbone, batch_size)
    data = part("data").LightlyDataset(str(train), transform=_transform(method))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - their solarisation draws from it
    loader = torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=workers)
    total = epochs * len(loader)
    if total == 0:
        raise ValueError(f"batch_size={batch_size} is more than the {len(data)} images: lower it.")
    for modules in (side.trained, side.followers):
        modules.to(device)
    optimizer = _optimizer(method, side.trained, batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    loss = torch.zeros(())
    for _ in range(epochs):
        for views, _, _ in loader:
            loss = side.loss([view.to(device) for view in views])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    last = loss.item()  # the host waits for the device here
    if not math.isfinite(last):
        raise ValueError(f"the loss of lightly's {method} became {last}: nothing is measured of that run.")
    backbone.cpu().eval()  # split batch norm brings the statistics of its parts together here
    backbone = _with_plain_norms(backbone, plain)
    return Trained(backbone, total, last)


def _transform(method: str) -> Any:
    """Two views of 32 px without blur; colour jitter at half strength."""
    transforms = part("transforms")
    match method:
        case "dino":
            return transforms.DINOTransform(
                global_crop_size=32, n_local_views=0, cj_strength=0.5, gaussian_blur=(0.0, 0.0, 0.0)
            )
        case "swav":  # the largest scale is named too: without it the package refuses one kind of crop
            return transforms.SwaVTransform(
                crop_sizes=[32],
                crop_counts=[2],
                crop_min_scales=[0.14],
                crop_max_scales=[1.0],
                cj_strength=0.5,
                gaussian_blur=0.0,
            )
    return transforms.SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)


def _optimizer(method: str, trained: nn.Module, batch_size: int) -> Optimizer:
    """Their optimiser; the rates are for a batch of 128 and scale with it."""
    factor = batch_size / 128
    if method == "swav":
        return torch.optim.Adam(trained.parameters(), lr=1e-3 * factor, weight_decay=1e-6)
    return torch.optim.SGD(trained.parameters(), lr=0.06 * factor, momentum=0.9, weight_decay=5e-4)


def _side(method: str, backbone: nn.Module, batch_size: int) -> _Side:
    match method:
        case "dino":
            return _dino(backbone)
        case "swav":
            return _swav(backbone)
    return _moco(backbone, batch_size)


def _without_gradients(module: nn.Module) -> nn.Module:
    part("models.utils").deactivate_requires_grad(module)
    return module


def _dino(backbone: nn.Module) -> _Side:
    heads, update = part("models.modules.heads"), part("models.utils").update_momentum
    width = backbone.num_features

    def head() -> nn.Module:
        whole: nn.Module = heads.DINOProjectionHead(width, 2048, 256, 2048, batch_norm=True)
        two_layers = [(width, 2048, nn.BatchNorm1d(2048), nn.GELU()), (2048, 256, None, None)]
        whole.layers = heads.ProjectionHead(two_layers).layers
        return whole

    student = nn.Sequential(backbone, head())
    # Their teacher's head starts with weights of its own; only its backbone is a copy.
    teacher = _without_gradients(nn.Sequential(copy.deepcopy(backbone), head()))
    criterion = part("loss").DINOLoss(output_dim=2048)

    def loss(views: Views) -> Tensor:
        update(student, teacher, m=0.99)
        with torch.no_grad():
            targets = [teacher(view) for view in views]
        value: Tensor = criterion(targets, [student(view) for view in views])
        return value

    return _Side(nn.ModuleList([student]), nn.ModuleList([teacher, criterion]), loss)


def _swav(backbone: nn.Module) -> _Side:
    heads = part("models.modules.heads")
    network = nn.Sequential(backbone, heads.SwaVProjectionHead(backbone.num_features, 512, 128))
    prototypes = heads.SwaVPrototypes(128, 512)
    criterion = part("loss").SwaVLoss()

    def loss(views: Views) -> Tensor:
        prototypes.normalize()
        scores = [prototypes(nn.functional.normalize(network(view), dim=1)) for view in views]
        value: Tensor = criterion(scores, [])
        return value.squeeze()

    return _Side(nn.ModuleList([network, prototypes]), nn.ModuleList(), loss)


def _moco(backbone: nn.Module, batch_size: int) -> _Side:
    utils = part("models.utils")
    if batch_size % _SPLITS:
        raise ValueError(
            f"batch_size={batch_size} is not a multiple of {_SPLITS}, the parts of lightly's split batch norm: "
            f"set {batch_size // _SPLITS * _SPLITS or _SPLITS}."
        )
    _split_norms(backbone)
    query = nn.Sequential(backbone, part("models.modules.heads").MoCoProjectionHead(backbone.num_features, 512, 128))
    key = _without_gradients(copy.deepcopy(query))
    criterion = part("loss").NTXentLoss(temperature=0.1, memory_bank_size=(moco_queue_size(batch_size), 128))

    def one_way(queries: Tensor, keys: Tensor) -> Tensor:
        with torch.no_grad():
            shuffled, order = utils.batch_shuffle(keys)
            embedded = utils.batch_unshuffle(key(shuffled), order)
        value: Tensor = criterion(query(queries), embedded)
        return value

    def loss(views: Views) -> Tensor:
        utils.update_momentum(query, key, m=0.99)
        first, second = views
        return 0.5 * (one_way(first, second) + one_way(second, first))

    return _Side(nn.ModuleList([query]), nn.ModuleList([key, criterion]), loss)


def moco_queue_size(batch_size: int) -> int:
    """Keys in the queue: 4096, and 8192 from a batch of 512 on, as they state."""
    return 8192 if batch_size >= 512 else 4096


def _split_norms(module: nn.Module) -> None:
    """Put lightly's split batch norm in the place of the plain one; the scales and shifts stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            split = part("models.batchnorm").SplitBatchNorm(child.num_features, _SPLITS)
            split.weight, split.bias = child.weight, child.bias
            setattr(module, name, split)
        else:
            _split_norms(child)


def _with_plain_norms(module: nn.Module, shapes: dict[str, torch.Size]) -> nn.Module:
    """The network with plain batch norm again; the statistics of the parts are equal and stand one after another."""
    state = {key: v if v.shape == shapes[key] else v[: shapes[key][0]] for key, v in module.state_dict().items()}
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and type(child) is not nn.BatchNorm2d:
                setattr(parent, name, nn.BatchNorm2d(child.num_features))
    module.load_state_dict(state)
    return module
