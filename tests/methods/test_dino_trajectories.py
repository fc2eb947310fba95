"""Six recorded training steps of the original, repeated with our method, optimisers, groups and schedules.

Batch norm at batch 8 amplifies rounding, so the whole runs are judged in float64 and only the first
steps in float32; see the tolerances of the recordings.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.backbones import num_features
from sslight.config import OptimSettings
from sslight.methods import DINO, DINOHead, Network, StepValues
from sslight.optim import (
    build_optimizer,
    clip_gradients,
    cosine_schedule,
    linear_warmup,
    parameter_groups,
    set_rates,
)
from tests.backbones.recorded import as_input, recorded_backbone, to_timm_keys
from tests.golden import assert_near, part, read_arrays, read_json

NAMES = ["dino_mobilenet_v2", "dino_mobilenet_v2_probe_clip", "dino_vit_tiny_adamw"]
CROPS = read_arrays("trajectories/crops.npz")


def build(name: str, case: dict[str, Any], dtype: torch.dtype) -> nn.ModuleDict:
    """The recorded networks: ``method`` and, where there is one, the linear probe ``classifier``."""
    settings, init = case["settings"], read_arrays(f"trajectories/{name}_init.npz")
    dino, head, views = settings["dino"], settings["dino"]["head"], settings["views"]
    student = recorded_backbone(case["arch"])
    heads = [
        DINOHead(
            num_features(student),
            num_layers=head["layers"],
            hidden_dim=head["hidden"],
            bottleneck_dim=head["bottleneck"],
            output_dim=head["out"],
            batch_norm=head["batch_norm"],
            norm_last_layer=head["last_layer_magnitude_fixed"],
        )
        for _ in range(2)
    ]
    method = DINO(
        Network(student, heads[0]),
        Network(recorded_backbone(case["arch"]), heads[1]),
        num_global=views["n_global"],
        num_local=views["n_local"],
        student_temp=dino["student_temp"],
        center_momentum=dino["center_momentum"],
        global_pair_weight=views["lambda_global_local"][0],
    )
    for network in (method.student, method.teacher):
        network.head.load_state_dict(part(init, "head."))
    modules = nn.ModuleDict({"method": method})
    if settings["joint_linear_probe_classes"] is not None:
        modules["classifier"] = nn.Linear(num_features(student), settings["joint_linear_probe_classes"])
        modules["classifier"].load_state_dict(part(init, "classifier."))
    return modules.to(dtype)


def schedule_at(step: int, settings: dict[str, Any]) -> tuple[StepValues, float, float]:
    """The method's scheduled values, the learning rate and the weight decay of a step."""
    schedule, dino = settings["schedule"], settings["dino"]
    epoch, per_epoch = step // schedule["iters_per_epoch"], schedule["iters_per_epoch"]
    total = schedule["total_epochs"] * per_epoch
    values = StepValues(
        momentum=cosine_schedule(
            step, base=dino["teacher_momentum_start"], final=dino["teacher_momentum_end"], total_steps=total
        ),
        teacher_temp=linear_warmup(
            epoch,
            start=dino["teacher_temp_start"],
            end=dino["teacher_temp_end"],
            num_steps=dino["teacher_temp_warmup_epochs"],
        ),
        freeze_last_layer=epoch < dino["last_layer_frozen_epochs"],
        use_queue=False,
    )
    lr = cosine_schedule(
        step,
        base=schedule["peak_lr"],
        final=schedule["min_lr"],
        total_steps=total,
        warmup_steps=schedule["warmup_epochs"] * per_epoch,
        warmup_start=schedule["warmup_start_lr"],
    )
    decay = cosine_schedule(
        step, base=schedule["weight_decay_start"], final=schedule["weight_decay_end"], total_steps=total
    )
    return values, lr, decay


def run(case: dict[str, Any], modules: nn.ModuleDict, num_steps: int) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Train; returns a record of each step, and the tensors that the recordings hold."""
    method, optim = modules["method"], case["settings"]["optimizer"]
    assert isinstance(method, DINO)
    options = {"name": optim["kind"], "momentum": 0.9, "lars_eta": optim.get("trust_coefficient", 0.001)}
    optimizer = build_optimizer(OptimSettings.model_validate(options), parameter_groups(modules))
    trainable = {key.removeprefix("method."): p for key, p in modules.named_parameters() if p.requires_grad}
    logits: dict[str, Tensor] = {}
    for name in ("student", "teacher"):
        method.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: logits.update({f"{name}_out": output[1].detach()})
        )
    records: list[dict[str, Any]] = []
    arrays: dict[str, Tensor] = {}
    for step in range(num_steps):
        values, lr, decay = schedule_at(step, case["settings"])
        set_rates(optimizer, lr=lr, weight_decay=decay)
        method.begin_step(values)
        views = (as_input(CROPS[f"{kind}.{step}"].flatten(0, 1), method.center.dtype) for kind in ("global", "local"))
        output = method(*views, values)
        record: dict[str, Any] = {"loss": output.loss.detach()}
        loss = output.loss
        if "classifier" in modules:
            logits["probe_logits"] = modules["classifier"](output.features)
            record["probe_loss"] = F.cross_entropy(logits["probe_logits"], CROPS[f"label.{step}"])
            loss = loss + record["probe_loss"]
        optimizer.zero_grad()
        loss.backward()
        if optim["clip_each_gradient_to_norm"]:
            clip_gradients(method.parameters(), optim["clip_each_gradient_to_norm"])
        for parameter in method.frozen_parameters(values):
            parameter.grad = None
        norms = {key: p.grad.norm() for key, p in trainable.items() if p.grad is not None}
        optimizer.step()
        method.end_step(values)
        record["grad_norm"] = torch.stack(list(norms.values())).norm()
        record["grad_norm_by_parameter"] = norms
        record["without_grad"] = sorted(set(trainable) - set(norms))
        record["lr"] = [group["lr"] for group in optimizer.param_groups]
        record["weight_decay"] = [group["weight_decay"] for group in optimizer.param_groups]
        record["teacher_temp"], record["teacher_momentum"] = values.teacher_temp, values.momentum
        weight_norms = torch.stack([p.detach().norm() for p in trainable.values()])
        record["weight_norm_after_step"] = weight_norms.norm()
        records.append(record)
        arrays |= {f"{name}.{step}": value for name, value in logits.items()}
        arrays[f"center.{step}"] = method.center[None].clone()
    return records, arrays


def our_keys(arch: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """Recorded entries under our names."""
    renamed = {}
    for key, value in recorded.items():
        network, _, name = key.partition(".backbone.")
        if name:
            (name,) = to_timm_keys(arch, {name: torch.empty(0)})
            key = f"{network}.backbone.{name}"
        renamed[key] = value
    return renamed


def assert_record_near(record: dict[str, Any], expected: dict[str, Any], arch: str, tolerance: float) -> None:
    expected = dict(expected)
    norms = our_keys(arch, expected.pop("grad_norm_by_parameter", {}))
    assert record["without_grad"] == sorted(expected.pop("without_grad"))
    largest = max(norms.values(), default=0.0)
    for key, norm in norms.items():  # norms that are zero but for rounding are judged by the largest one
        ours = float(record["grad_norm_by_parameter"][key])
        assert abs(ours - norm) <= tolerance * max(norm, 1e-6 * largest), key
    for key, value in expected.items():
        assert_near(
            torch.as_tensor(record[key], dtype=torch.float64).detach(),
            torch.tensor(value, dtype=torch.float64),
            tolerance,
            key,
        )


def assert_state_near(modules: nn.ModuleDict, start: dict[str, Tensor], expected: dict[str, Any], arch: str) -> None:
    """Mean, standard deviation, norm and change of norm of every entry of the final state."""
    expected = our_keys(arch, expected)
    state = {key.removeprefix("method."): value for key, value in modules.state_dict().items()}
    assert set(state) - {"center"} == set(expected)
    for key, value in expected.items():
        if isinstance(value, int):
            assert int(state[key]) == value, key
            continue
        x = state[key]
        statistics = torch.stack([x.mean(), x.std(unbiased=False), x.norm()])
        assert_near(statistics, torch.tensor(value[:3], dtype=torch.float64), 1e-9, f"statistics of {key}")
        if value[3] > 1e-9 * value[2]:  # below: shifts before another batch norm, whose true gradient is zero
            assert_near((x - start[key]).norm(), value[3], 1e-9, f"change of {key}")


@pytest.mark.parametrize("name", NAMES[:2])
def test_in_double_precision_the_first_steps_of_a_cnn_are_the_recorded_ones(name: str) -> None:
    case = read_json(f"trajectories/{name}.json")
    records, _ = run(case, build(name, case, torch.float64), 2)
    for record, recorded in zip(records, case["float64"]["steps"], strict=False):
        assert_record_near(record, recorded, case["arch"], 1e-9)


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[:2]), NAMES[2]])
def test_in_double_precision_the_whole_run_is_the_recorded_one(name: str) -> None:
    case, expected = read_json(f"trajectories/{name}.json"), read_arrays(f"trajectories/{name}_expected.npz")
    modules = build(name, case, torch.float64)
    start = {key.removeprefix("method."): value.clone() for key, value in modules.state_dict().items()}
    records, arrays = run(case, modules, case["steps"])
    for record, recorded in zip(records, case["float64"]["steps"], strict=True):
        assert_record_near(record, recorded, case["arch"], 1e-9)
    assert_state_near(modules, start, case["float64"]["final_state_mean_std_norm_change"], case["arch"])
    state = {key.removeprefix("method."): value for key, value in modules.state_dict().items()}
    for key, value in our_keys(case["arch"], part(expected, "f64.final.")).items():
        assert_near(state[key], value, 1e-6, key)
    for key, value in part(expected, "f64.").items():
        if not key.startswith("final."):
            assert_near(arrays[key], value, 1e-6, key)


@pytest.mark.parametrize("name", NAMES)
def test_in_single_precision_the_first_steps_are_the_recorded_ones(name: str) -> None:
    case = read_json(f"trajectories/{name}.json")
    vit = case["arch"] == "vit_tiny"
    num_steps = case["steps"] if vit else 2  # a CNN's run is chaotic from here on
    records, _ = run(case, build(name, case, torch.float32), num_steps)
    for record, recorded in zip(records, case["float32"]["steps"], strict=False):
        assert_near(float(record["loss"]), recorded["loss"], 1e-5, "loss")
        assert_near(float(record["grad_norm"]), recorded["grad_norm"], 1e-3, "gradient norm")
