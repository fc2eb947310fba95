"""From settings to a method."""

from collections.abc import Callable

import pytest
import torch

import sslight.api.pretrain
from sslight.backbones.cpu import layers as cpu_layers
from sslight.config import PretrainSettings, load_recipe
from sslight.methods import DINO, StepValues, build_method
from sslight.methods.numerics import linear


def test_the_settings_reach_the_method(tiny: Callable[..., PretrainSettings]) -> None:
    settings = tiny(dino__student_temp=0.2, dino__center_momentum=0.8, global_pair_weight=0.3)
    method = build_method(settings)
    assert isinstance(method, DINO)
    assert (method.student_temp, method.center_momentum, method.global_pair_weight) == (0.2, 0.8, 0.3)
    assert method.center.shape == (32,)
    assert (method.num_global, method.num_local) == (2, 2)
    values = StepValues(momentum=0.9, teacher_temp=0.04, freeze_last_layer=True, use_queue=False)
    output = method(torch.randn(8, 3, 32, 32), torch.randn(8, 3, 16, 16), values)
    assert torch.isfinite(output.loss)
    assert output.features.shape[0] == 4


@pytest.mark.parametrize(("device_type", "adopted"), [("cpu", True), ("cuda", False)])
def test_the_layers_for_a_cpu_are_adopted_on_a_cpu_alone(
    tiny: Callable[..., PretrainSettings], device_type: str, adopted: bool
) -> None:
    method = build_method(tiny(), device_type)
    assert any(type(module).__module__ == cpu_layers.__name__ for module in method.modules()) == adopted


def test_a_run_on_a_gpu_adopts_nothing_for_a_cpu(
    tiny: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def build(_: PretrainSettings, device_type: str) -> None:
        seen.append(device_type)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(sslight.pretraining.memory, "free_memory", lambda device: 1 << 40)
    monkeypatch.setattr(sslight.api.pretrain, "build_method", build)
    for devices in ("1", "cpu"):
        with pytest.raises(KeyboardInterrupt):
            sslight.api.pretrain.run_pretraining(tiny(devices=devices, output="run", data__train="synthetic:8"))
    assert seen == ["cuda", "cpu"]


def test_products_of_matrices_on_a_gpu_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_layers, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(cpu_layers._OneDNNLinear, "apply", None)  # calling it would fail
    x, weight = torch.empty(512, 2048, device="meta"), torch.empty(4, 2048, device="meta")
    assert linear(x, weight).shape == (512, 4)
    with pytest.raises(TypeError):
        linear(torch.zeros(512, 2048), torch.zeros(4, 2048))


def test_drop_path_is_the_students_alone(tiny: Callable[..., PretrainSettings]) -> None:
    method = build_method(tiny(backbone="vit_tiny", patch_size=8, drop_path=0.1))
    rates = {
        name: max(getattr(module, "drop_prob", 0.0) for module in network.modules())
        for name, network in method.networks.items()
    }
    assert rates == {"student": pytest.approx(0.1), "teacher": 0.0}


@pytest.mark.parametrize("name", ["dino", "swav", "moco"])
def test_all_networks_start_smooth_where_it_is_asked_for(name: str) -> None:
    for init in ("standard", "smooth"):
        method = build_method(load_recipe(f"{name}_cnn_sslight_64", {"backbone": "mobilenetv2_035", "init": init}))
        for network in method.networks.values():
            scales = network.get_parameter("blocks.1.1.bn3.weight")
            assert bool((scales == 0).all()) == (init == "smooth")


def test_the_same_seed_builds_the_same_method(tiny: Callable[..., PretrainSettings]) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_method(tiny()).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet19"}, "backbone=resnet19 is not a known network"),
        (
            {"backbone": "vit_tiny", "views__local_size": 20, "patch_size": 8},
            r"views\.local_size=20 is not a multiple",
        ),
        (
            {"backbone": "vit_tiny", "views__global_size": 36, "patch_size": 8},
            r"views\.global_size=36 is not a multipl",
        ),
        ({"patch_size": 8}, "patch_size=8 has no effect"),
    ],
)
def test_settings_that_do_not_fit_the_backbone_are_named(
    tiny: Callable[..., PretrainSettings], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_method(tiny(**changes))
