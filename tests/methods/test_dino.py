"""DINO: the loss and the centre against the recorded ones, and what a step does."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslight.config import load_recipe
from sslight.methods import (
    DINO,
    DINOHead,
    Network,
    StepValues,
    build_method,
    dino_loss,
    dino_pair_means,
    koleo_loss,
    update_center,
)
from sslight.optim import linear_warmup
from tests.golden import assert_near, read_arrays, read_json

CASES = read_json("dino_loss/cases.json")


def by_view(rows: Tensor, batch: int) -> Tensor:
    """``[V·B, K]`` → ``[V, B, K]``."""
    return rows.reshape(-1, batch, rows.shape[-1])


VALUES = StepValues(momentum=0.9, teacher_temp=0.05, freeze_last_layer=False, use_queue=False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_loss_gradient_and_centre_are_the_recorded_ones(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case, arrays = CASES[name], read_arrays(f"dino_loss/{name}.npz")
    exact = case["float64_scalars"]
    center = arrays["in.center"][0].to(dtype)
    weight, other_weight = case["lambdas"]
    for call, epoch in enumerate(case["epochs"]):
        temps = {
            "student_temp": case["student_temp"],
            "teacher_temp": linear_warmup(
                epoch,
                start=case["warmup_teacher_temp"],
                end=case["teacher_temp"],
                num_steps=case["warmup_epochs"],
            ),
        }
        teacher = by_view(arrays[f"in.teacher.{call}"].to(dtype), case["B"])
        student = by_view(arrays[f"in.student.{call}"].to(dtype), case["B"]).requires_grad_()
        means = dino_pair_means(student, teacher, center, **temps)
        global_mean, local_mean = means.global_mean, means.local_mean
        if local_mean is None:
            loss = dino_loss(student, teacher, center, **temps, global_pair_weight=weight)
        else:
            loss = weight * global_mean + other_weight * local_mean
            assert_near(global_mean, arrays[f"out.global_term.{call}"], 1e-5, "global term")
            assert_near(local_mean, arrays[f"out.local_term.{call}"], 1e-5, "local term")
            if weight + other_weight == 1.0:
                whole = dino_loss(student, teacher, center, **temps, global_pair_weight=weight)
                assert_near(whole, loss.detach(), 1e-6, "the loss in one")
        assert_near(loss, exact[f"out.loss.{call}"], 1e-9 if dtype == torch.float64 else 1e-5, "loss")
        (gradient,) = torch.autograd.grad(loss, student)
        assert_near(gradient.flatten(0, 1), arrays[f"out.grad_student.{call}"], 1e-5, "gradient")
        center = update_center(center, teacher, momentum=case["center_momentum"])
        assert_near(center, arrays[f"out.center.{call}"][0], tolerance, "centre")


def test_the_exact_sevenths_are_the_plain_mean() -> None:
    case, arrays = CASES["c_exact_sevenths"], read_arrays("dino_loss/c_exact_sevenths.npz")
    loss = dino_loss(
        by_view(arrays["in.student.0"].double(), case["B"]),
        by_view(arrays["in.teacher.0"].double(), case["B"]),
        arrays["in.center"][0].double(),
        student_temp=case["student_temp"],
        teacher_temp=float(arrays["out.teacher_temp"][0]),
        global_pair_weight=None,
    )
    assert_near(loss, case["float64_scalars"]["out.loss.0"], 1e-9)


def test_half_precision_logits_give_a_float32_loss_under_autocast() -> None:
    student = torch.randn(4, 3, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dino_loss(
            student, student[:2], torch.zeros(8), student_temp=0.1, teacher_temp=0.04, global_pair_weight=None
        )
    exact = dino_loss(
        student.double(),
        student[:2].double(),
        torch.zeros(8).double(),
        student_temp=0.1,
        teacher_temp=0.04,
        global_pair_weight=None,
    )
    assert loss.dtype == torch.float32
    assert_near(loss, exact, 1e-5)


def _center_of_two_processes(rank: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        arrays = read_arrays("two_processes/two_processes.npz")
        settings = read_json("two_processes/cases.json")["dino"]
        center = arrays["dino.in.center"][0]
        results: dict[str, Tensor] = {}
        for call in range(settings["calls"]):
            student = by_view(arrays[f"dino.in.student.{call}.rank{rank}"], settings["B"]).requires_grad_()
            teacher = by_view(arrays[f"dino.in.teacher.{call}.rank{rank}"], settings["B"])
            loss = dino_loss(
                student,
                teacher,
                center,
                student_temp=0.1,
                teacher_temp=linear_warmup(call, start=0.04, end=0.07, num_steps=50),
                global_pair_weight=settings["lambdas"][0],
            )
            center = update_center(center, teacher, momentum=settings["momentum"])
            results |= {f"loss.{call}": loss.detach(), f"center.{call}": center}
            results[f"grad_student.{call}"] = torch.autograd.grad(loss, student)[0].flatten(0, 1)
        torch.save(results, f"{out}.{rank}")
    finally:
        dist.destroy_process_group()


def test_two_processes_share_the_recorded_centre(tmp_path: Path) -> None:
    spawn(_center_of_two_processes, (str(tmp_path / "store"), str(tmp_path / "out")), nprocs=2)  # type: ignore[no-untyped-call]
    arrays = read_arrays("two_processes/two_processes.npz")
    for rank in range(2):
        results = torch.load(tmp_path / f"out.{rank}", weights_only=True)
        for name, value in results.items():
            shared = name.startswith("center")
            expected = arrays[f"dino.out.{name}" if shared else f"dino.out.{name}.rank{rank}"]
            assert_near(value, expected.reshape(value.shape), 1e-5, f"{name} of process {rank}")


# ---- The method ----


class Pool(nn.Module):
    """A backbone of one convolution with batch norm: a few features of a view of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.bn(self.conv(x)).relu().mean((2, 3))
        return features


def dino(*, norm_last_layer: bool = True, **changes: Any) -> DINO:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "num_global": 2,
        "num_local": 3,
        "student_temp": 0.1,
        "center_momentum": 0.9,
        "global_pair_weight": 0.4,
    }
    student, teacher = (
        Network(
            Pool(),
            DINOHead(
                5,
                num_layers=2,
                hidden_dim=8,
                bottleneck_dim=4,
                output_dim=12,
                batch_norm=True,
                norm_last_layer=norm_last_layer,
            ),
        )
        for _ in range(2)
    )
    return DINO(student, teacher, **{**settings, **changes})


def views(num_images: int = 4, num_local: int = 3) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    local = torch.randn(num_local * num_images, 3, 6, 6, generator=generator) if num_local else None
    return torch.randn(2 * num_images, 3, 10, 10, generator=generator), local


def test_the_teacher_starts_as_a_copy_that_is_not_trained() -> None:
    method = dino()
    for key, value in method.student.state_dict().items():
        assert torch.equal(method.teacher.state_dict()[key], value)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    shared = {p.data_ptr() for p in method.student.parameters()} & {p.data_ptr() for p in method.teacher.parameters()}
    assert not shared


def test_a_step_gives_loss_indicators_and_features_of_the_first_view() -> None:
    method = dino()
    reference = copy.deepcopy(method)
    global_views, local_views = views()
    method.begin_step(VALUES)
    output = method(global_views, local_views, VALUES)
    features, student = reference.student(global_views, local_views)
    _, teacher = reference.teacher(global_views)
    temps = {"student_temp": 0.1, "teacher_temp": 0.05}
    student, teacher = by_view(student, 4), by_view(teacher, 4)
    torch.testing.assert_close(output.loss, dino_loss(student, teacher, method.center, **temps, global_pair_weight=0.4))
    torch.testing.assert_close(output.features, features[:4].detach())
    assert not output.features.requires_grad
    assert set(output.scalars) == {
        "teacher_entropy",
        "target_spread",
        "divergence",
        "global_loss",
        "local_loss",
    }
    assert not any(value.requires_grad or value.ndim for value in output.scalars.values())
    targets = (teacher / 0.05).softmax(-1)
    entropy = -(targets * targets.log()).sum(-1).mean()
    torch.testing.assert_close(output.scalars["teacher_entropy"], entropy / torch.tensor(12.0).log())
    torch.testing.assert_close(output.scalars["divergence"], output.loss.detach() - entropy)
    mix = 0.4 * output.scalars["global_loss"] + 0.6 * output.scalars["local_loss"]
    torch.testing.assert_close(mix, output.loss.detach())


def test_koleo_is_the_mean_log_distance_to_the_nearest_on_the_sphere() -> None:
    angles = torch.tensor([0.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5.0], [0.2], [3.0]])
    chords = 2 * torch.sin(torch.tensor([0.1, 0.1, 0.9, 2.0], dtype=torch.float64) / 2)
    torch.testing.assert_close(koleo_loss(features), -chords.log().mean())
    leaf = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(koleo_loss(leaf), leaf)
    assert koleo_loss(features - 1e-3 * gradient) < koleo_loss(features)
    same = torch.ones(3, 2, requires_grad=True)  # equal features: a finite loss and gradient
    (gradient,) = torch.autograd.grad(koleo_loss(same), same)
    assert bool(gradient.isfinite().all())


def test_koleo_is_added_to_the_loss_and_changes_no_indicator() -> None:
    global_views, local_views = views()
    plain, spread = (dino(koleo_weight=weight)(global_views, local_views, VALUES) for weight in (0.0, 0.5))
    torch.testing.assert_close(spread.loss, plain.loss + 0.5 * koleo_loss(plain.features))
    for name, value in plain.scalars.items():
        torch.testing.assert_close(spread.scalars[name], value)
    torch.testing.assert_close(spread.scalars["koleo_loss"], koleo_loss(plain.features))
    built = build_method(load_recipe("dino_cnn_sslight_64", {"dino.koleo_weight": 0.03, "backbone": "test_resnet"}))
    assert isinstance(built, DINO)
    assert built.koleo_weight == 0.03


def test_koleo_seeks_the_nearest_in_full_precision() -> None:
    angles = torch.tensor([0.0, 0.0301, 0.0600])  # the cosines of these are all 1 in bfloat16
    features = torch.stack([angles.cos(), angles.sin()], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = koleo_loss(features)
    chords = 2 * torch.sin(torch.tensor([0.0301, 0.0299, 0.0299]) / 2)
    torch.testing.assert_close(found, -chords.log().mean(), rtol=1e-4, atol=1e-4)


def test_only_the_student_gets_gradients() -> None:
    method = dino(norm_last_layer=False)
    method(*views(), VALUES).loss.backward()
    assert all(p.grad is not None for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_end_of_a_step_moves_centre_and_teacher() -> None:
    method = dino()
    method.begin_step(VALUES)
    with torch.no_grad():
        _, logits = copy.deepcopy(method).teacher(views()[0])
    method(*views(), VALUES)
    assert not method.center.any()
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
    buffers = {name: b.clone() for name, b in method.teacher.named_buffers()}
    method.end_step(VALUES)
    torch.testing.assert_close(method.center, 0.1 * logits.mean(0))
    for old, new, student in zip(before, method.teacher.parameters(), method.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student.detach())
    for name, b in method.teacher.named_buffers():
        assert torch.equal(b, buffers[name])


def test_parts_of_a_batch_make_the_centre_of_the_whole() -> None:
    whole, parts = dino().eval(), dino().eval()  # evaluation mode: batch norm must not couple the images
    (global_views, local_views), size = views(), 2
    assert local_views is not None
    whole.begin_step(VALUES)
    loss = whole(global_views, local_views, VALUES).loss
    whole.end_step(VALUES)
    parts.begin_step(VALUES)
    losses = []
    for start in (0, 2):
        chunks = [
            x.reshape(-1, 4, *x.shape[1:])[:, start : start + size].flatten(0, 1) for x in (global_views, local_views)
        ]
        losses.append(parts(*chunks, VALUES).loss)
    parts.end_step(VALUES)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(parts.center, whole.center)


def test_an_interrupted_step_leaves_no_trace_in_the_next() -> None:
    first, second = dino(), dino()
    first(*views(), VALUES)  # never ended
    for method in (first, second):
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.reset_running_stats()
        method.begin_step(VALUES)
        method(*views(), VALUES)
        method.end_step(VALUES)
    assert torch.equal(first.center, second.center)


def test_the_networks_run_on_batch_statistics_with_buffers_of_their_own() -> None:
    method = dino()
    method(*views(), VALUES)
    student, teacher = method.student.backbone, method.teacher.backbone
    assert isinstance(student, Pool)
    assert isinstance(teacher, Pool)
    assert int(student.bn.num_batches_tracked or 0) == 2  # global views, then local views
    assert int(teacher.bn.num_batches_tracked or 0) == 1


def test_without_local_views_the_loss_is_that_of_the_global_pairs() -> None:
    method = dino(num_local=0)
    output = method(*views(num_local=0), VALUES)
    assert "local_loss" not in output.scalars
    torch.testing.assert_close(output.loss.detach(), output.scalars["global_loss"])


def test_views_that_do_not_match_the_counts_are_an_error() -> None:
    with pytest.raises(AssertionError):
        dino()(*views(num_local=2), VALUES)


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_the_last_layer_is_frozen_while_asked_for(norm_last_layer: bool) -> None:
    method = dino(norm_last_layer=norm_last_layer)
    assert method.frozen_parameters(VALUES) == []
    frozen = method.frozen_parameters(StepValues(0.9, 0.05, freeze_last_layer=True, use_queue=False))
    names = {name for name, p in method.named_parameters() if any(p is f for f in frozen)}
    prefix = "student.head.last_layer."
    assert names == {prefix + "weight_v"} | (set() if norm_last_layer else {prefix + "weight_g"})


def test_the_state_dict_is_the_whole_truth() -> None:
    def run(method: DINO, steps: int) -> float:
        loss = 0.0
        for _ in range(steps):
            method.begin_step(VALUES)
            output = method(*views(), VALUES)
            method.zero_grad()
            output.loss.backward()
            with torch.no_grad():
                for p in method.student.parameters():
                    if p.grad is not None:
                        p.sub_(p.grad, alpha=0.1)
            method.end_step(VALUES)
            loss = float(output.loss.detach())
        return loss

    method = dino()
    run(method, 2)
    other = dino()
    other.load_state_dict(method.state_dict())
    assert "center" in method.state_dict()
    assert run(method, 2) == run(other, 2)


def test_the_backbone_to_export_is_the_students() -> None:
    method = dino()
    assert list(method.networks) == ["student", "teacher"]
    assert method.backbone is method.student.backbone
    keys = set(method.state_dict())
    for name, backbone in method.networks.items():
        assert {f"{name}.backbone.{key}" for key in backbone.state_dict()} <= keys
