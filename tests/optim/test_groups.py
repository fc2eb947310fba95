"""Which parameter is in which group: as recorded, for pre-training and classification."""

from typing import Any

import pytest
import torch
from torch import nn

from sslight.backbones import build_backbone, num_features
from sslight.methods import DINO, DINOHead, Network
from sslight.optim import classification_groups, parameter_groups
from tests.backbones.recorded import to_timm_keys
from tests.golden import read_json

PRETRAINING = [case for case in read_json("param_groups/pretraining.json") if case["method"] == "DINO"]
CLASSIFICATION = read_json("param_groups/classification.json")
NamedShapes = list[tuple[str, list[int]]]


def our_names(arch: str, recorded: list[list[Any]], backbone_prefix: str, ours: str) -> NamedShapes:
    """Recorded names and shapes with the names of our backbone."""
    result = []
    for name, shape in recorded:
        if name.startswith(backbone_prefix):
            key = name.removeprefix(backbone_prefix)
            (key,) = to_timm_keys(arch, {key: torch.empty(0)})
            name = ours + key
        result.append((name, shape))
    return result


def names_in(group: dict[str, Any], *modules: nn.Module) -> NamedShapes:
    names = {id(p): name for module in modules for name, p in module.named_parameters()}
    return [(names[id(p)], list(p.shape)) for p in group["params"]]


@pytest.mark.parametrize("case", PRETRAINING, ids=lambda case: f"{case['arch']}-{case['joint_linear_probe']}")
def test_pretraining_groups_are_the_recorded_ones_in_order(case: dict[str, Any]) -> None:
    arch, vit = case["arch"], case["arch"] == "vit_tiny"
    student, teacher = build_backbone(arch), build_backbone(arch)
    networks = [
        Network(
            backbone,
            DINOHead(
                num_features(backbone),
                num_layers=3,
                hidden_dim=32,
                bottleneck_dim=16,
                output_dim=64,
                batch_norm=not vit,
                norm_last_layer=not vit,
            ),
        )
        for backbone in (student, teacher)
    ]
    method = DINO(
        *networks,
        num_global=2,
        num_local=6,
        student_temp=0.1,
        center_momentum=0.9,
        global_pair_weight=0.4,
    )
    modules = nn.ModuleDict({"method": method})
    if case["joint_linear_probe"]:
        modules["classifier"] = nn.Linear(num_features(student), 1000)
    groups = parameter_groups(modules)
    assert len(groups) == len(case["groups"])
    for group, recorded in zip(groups, case["groups"], strict=True):
        expected = our_names(arch, recorded["params"], "student.backbone.", "student.backbone.")
        ours = [(name.removeprefix("method."), shape) for name, shape in names_in(group, modules)]
        assert ours == expected
        assert group["weight_decay_factor"] == recorded["options"].get("wd_factor", 1.0)
        assert group["lars_exclude"] == recorded["options"].get("lars_exclude", False)
    assert sum(p.numel() for g in groups for p in g["params"]) == case["trainable_scalars"]
    assert sum(not p.requires_grad for p in modules.parameters()) == len(case["frozen"])


class SemiHead(nn.Module):
    """The layers of the recorded semi-supervised classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(1280, width), nn.BatchNorm1d(width)
        self.fc2, self.bn2 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.fc3 = nn.Linear(width, 1000)


@pytest.mark.parametrize("case", CLASSIFICATION, ids=lambda case: case["recipe"])
def test_classification_groups_hold_the_recorded_parameters(case: dict[str, Any]) -> None:
    arch = case["arch"]
    backbone = build_backbone(arch)
    head: nn.Module
    if case["protocol"] == "Semi":
        head = SemiHead(case["semi_head_width_here"])
    else:
        backbone.requires_grad_(False)
        head = nn.Linear(768 if arch == "vit_tiny" else 1280, 1000)
    groups = {group["name"]: group for group in classification_groups(backbone, head, head_lr_factor=5.0)}
    names = {name: names_in(group, nn.ModuleDict({"b": backbone, "h": head})) for name, group in groups.items()}
    recorded = [
        sorted(
            (
                name.replace("features.", "b.encoder.").replace("classifier.", "h.").replace("head.", "h."),
                shape,
            )
            for name, shape in group["params"]
        )
        for group in case["groups"]
    ]
    renamed = [sorted(our_names(arch, [list(entry) for entry in group], "b.", "b.")) for group in recorded]
    of_head = names.get("head_regularised", []) + names.get("head_unregularised", [])
    if arch == "vit_tiny":  # whose head the original overlooks, and puts among the other parameters
        assert sorted(of_head) == sorted(renamed[1] + renamed[2])
    else:
        assert sorted(of_head) == renamed[0]
        assert sorted(names.get("regularised", [])) == renamed[1]
        assert sorted(names.get("depthwise", []) + names.get("unregularised", [])) == renamed[2]
    for name, group in groups.items():
        assert group["lr_factor"] == (5.0 if name.startswith("head") else 1.0)
        assert group["weight_decay_factor"] == (1.0 if name.endswith("_regularised") or name == "regularised" else 0.0)
        assert group["lars_exclude"] == name.endswith("unregularised")


def test_frozen_parameters_are_in_no_group() -> None:
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    (group,) = parameter_groups(module)
    assert group["params"] == [module.weight]
