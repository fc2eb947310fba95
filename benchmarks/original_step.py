"""A DINO step written plainly after the published description, to measure this program's step against.

Sources: Caron et al., ICCV 2021 (algorithm 1, multi-crop), You et al., 2017 (LARS) and Tan et al., ICLR 2023 (the
weight of global–global pairs). It is written for this comparison, not anyone's copy: float32, planar images, each
view a tensor of its own, the teacher and the student in turn, one backbone pass for each run of views of one size, a
Python loop over pairs of views, and Python loops over parameters in LARS and in the teacher's update. The loss is
read, and so waited for, at every step.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sslight.backbones import build_backbone
from sslight.config import PretrainSettings
from sslight.methods import DINO


class PlainNetwork(nn.Module):
    """Backbone, projection MLP and weight-normalised last layer."""

    def __init__(self, backbone: nn.Module, mlp: nn.Module, last_layer: nn.Module) -> None:
        super().__init__()
        self.backbone, self.mlp, self.last_layer = backbone, mlp, last_layer

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Logits ``[V·B, K]`` of views ``[B, 3, S, S]``."""
        groups = [torch.cat(list(group)) for _, group in groupby(views, key=lambda view: view.shape[-1])]
        features = torch.cat([self.backbone(group) for group in groups])
        logits: Tensor = self.last_layer(F.normalize(self.mlp(features), dim=-1))
        return logits


def plain_network(settings: PretrainSettings, network: nn.Module, *, drop_path: float) -> PlainNetwork:
    """A plain network with the weights of one of this program's."""
    backbone = build_backbone(
        settings.backbone,
        image_size=settings.views.global_size,
        patch_size=settings.patch_size,
        drop_path=drop_path,
    )
    backbone.load_state_dict(network.get_submodule("backbone").state_dict())
    layers: list[nn.Module] = []
    for layer in network.get_submodule("head.mlp").children():
        if isinstance(layer, nn.Linear):
            plain: nn.Module = nn.Linear(layer.in_features, layer.out_features)
        elif isinstance(layer, nn.BatchNorm1d):
            plain = nn.BatchNorm1d(layer.num_features)
        else:
            plain = nn.GELU()
        plain.load_state_dict(layer.state_dict())
        layers.append(plain)
    ours = network.get_submodule("head.last_layer")
    weight_g, weight_v = ours.get_parameter("weight_g"), ours.get_parameter("weight_v")
    last = weight_norm(nn.Linear(weight_v.shape[1], weight_v.shape[0], bias=False))
    last.load_state_dict({f"parametrizations.weight.original{i}": w for i, w in enumerate((weight_g, weight_v))})
    last.get_parameter("parametrizations.weight.original0").requires_grad_(weight_g.requires_grad)
    return PlainNetwork(backbone, nn.Sequential(*layers), last)


class PlainLARS:
    """LARS, one parameter after the other."""

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float, eta: float) -> None:
        self.parameters = list(parameters)
        self.buffers = [torch.zeros_like(p) for p in self.parameters]
        self.momentum, self.eta = momentum, eta

    @torch.no_grad()
    def step(self, lr: float, weight_decay: float) -> None:
        """Biases and norms are neither decayed nor adapted; depth-wise kernels are only adapted."""
        for parameter, buffer in zip(self.parameters, self.buffers, strict=True):
            if parameter.grad is None:
                continue
            update = parameter.grad
            if parameter.ndim > 1:
                if not (parameter.ndim == 4 and parameter.shape[1] == 1):
                    update = update + weight_decay * parameter
                weight_size, update_size = parameter.norm(), update.norm()
                one = torch.ones_like(weight_size)
                ratio = torch.where(update_size > 0, self.eta * weight_size / update_size, one)
                update = update * torch.where(weight_size > 0, ratio, one)
            buffer.mul_(self.momentum).add_(update)
            parameter.add_(buffer, alpha=-lr)


class OriginalStep:
    """Student, teacher and centre, with the weights of ``dino``, and one training step."""

    def __init__(self, settings: PretrainSettings, dino: DINO, device: str) -> None:
        self.student = plain_network(settings, dino.student, drop_path=settings.drop_path).to(device)
        self.teacher = plain_network(settings, dino.teacher, drop_path=0.0).to(device).requires_grad_(False)
        self.center = torch.zeros_like(dino.center, device=device)
        self.settings = settings
        learning = [p for p in self.student.parameters() if p.requires_grad]
        self.lars = PlainLARS(learning, settings.optim.momentum, settings.optim.lars_eta)
        self.adamw = torch.optim.AdamW(
            [
                {"params": [p for p in learning if p.ndim > 1], "decays": 1.0},
                {"params": [p for p in learning if p.ndim <= 1], "decays": 0.0},
            ]
        )

    def __call__(self, views: Sequence[Tensor], *, lr: float, momentum: float, teacher_temp: float) -> float:
        """One step on normalised float32 views ``[B, 3, S, S]``, global ones first; the loss."""
        num_global = self.settings.views.num_global
        with torch.no_grad():
            teacher_logits = self.teacher(views[:num_global])
        loss = self.loss(self.student(views), teacher_logits, len(views), teacher_temp)
        value = float(loss)
        self.adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        decay = self.settings.optim.weight_decay
        if self.settings.optim.name == "lars":
            self.lars.step(lr, decay)
        else:
            for group in self.adamw.param_groups:
                group["lr"], group["weight_decay"] = lr, decay * group["decays"]
            self.adamw.step()
        with torch.no_grad():
            share = self.settings.dino.center_momentum
            self.center = self.center * share + teacher_logits.mean(0) * (1 - share)
            for teacher, student in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                teacher.mul_(momentum).add_((1 - momentum) * student)
        return value

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, num_views: int, teacher_temp: float) -> Tensor:
        """Mean cross-entropies of global–global and global–local pairs, weighted."""
        num_global, weight = self.settings.views.num_global, self.settings.global_pair_weight
        students = (student_logits / self.settings.dino.student_temp).chunk(num_views)
        targets = F.softmax((teacher_logits - self.center) / teacher_temp, dim=-1).chunk(num_global)
        pairs: dict[bool, list[Tensor]] = {True: [], False: []}
        for t, target in enumerate(targets):
            for v, student in enumerate(students):
                if v != t:
                    cross_entropy = torch.sum(-target * F.log_softmax(student, dim=-1), dim=-1).mean()
                    pairs[v < num_global].append(cross_entropy)
        global_mean, local_mean = (torch.stack(pairs[kind]).mean() for kind in (True, False))
        if weight is None:
            return torch.stack(pairs[True] + pairs[False]).mean()
        return weight * global_mean + (1 - weight) * local_mean
