"""SwAV: assignments, loss and queue against the recorded ones, and what a step does."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslight.methods import Network, StepValues, SwAV, SwAVHead, sinkhorn, swav_loss, swav_pair_means
from tests.golden import assert_near, read_arrays, read_json
from tests.methods.test_dino import Pool, by_view, views

CASES = read_json("swav/cases.json")
PRECISIONS = [(torch.float64, 1e-6), (torch.float32, 1e-5)]
VALUES = StepValues(use_queue=True)


def method_of(case: dict[str, Any], *, num_global: int = 2, queue_size: int | None = None) -> SwAV:
    """A SwAV whose network passes embeddings and scores through, as recorded."""
    head = SwAVHead(1, num_layers=1, hidden_dim=1, output_dim=case["D"], num_prototypes=case["K"], batch_norm=False)
    method = SwAV(
        Network(nn.Identity(), head),
        num_global=num_global,
        num_local=case["n_local"],
        temperature=0.1,
        epsilon=0.05,
        num_iterations=3,
        queue_size=case["queue"] if queue_size is None else queue_size,
        global_pair_weight=case["lambdas"][0],
    )

    def pass_through(features: Tensor) -> tuple[Tensor, Tensor]:
        return features[:, : case["D"]], features[:, case["D"] :]

    head.forward = pass_through  # type: ignore[method-assign]
    return method


def step(method: SwAV, batch: int, embeddings: Tensor, scores: Tensor, prototypes: Tensor) -> dict[str, Tensor]:
    """A step on recorded embeddings and scores: loss, gradient by the scores, assignments, queue."""
    with torch.no_grad():
        method.network.head.prototypes.weight.copy_(prototypes)
    scores = scores.clone().requires_grad_()
    rows = torch.cat([embeddings, scores], dim=1)
    num_global = method.num_global * batch
    seen: list[Tensor] = []
    assign = method.assign
    method.assign = lambda *args, **kwargs: (seen.append(assign(*args, **kwargs)), seen[-1])[1]  # type: ignore[method-assign, func-returns-value]
    output = method(rows[:num_global], rows[num_global:], VALUES)
    method.assign = assign  # type: ignore[method-assign]
    (gradient,) = torch.autograd.grad(output.loss, scores)
    method.end_step(VALUES)
    return {
        "loss": output.loss.detach(),
        "grad_scores": gradient,
        "assignments": seen[0],
        "queue": method.queue.clone(),
        "global_term": output.scalars["global_loss"],
        "local_term": output.scalars["local_loss"],
    }


# ---- Sinkhorn ----


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["what"] == "sinkhorn"])
def test_assignments_are_the_recorded_ones(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case, arrays = CASES[name], read_arrays(f"swav/{name}.npz")
    scores = arrays["in.scores"].to(dtype)
    assignments = sinkhorn(scores, epsilon=case["epsilon"], num_iterations=case["iterations"])
    assert_near(assignments, arrays["out.assignments"], tolerance)


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 30),
    prototypes=st.integers(2, 20),
    epsilon=st.sampled_from([0.005, 0.01, 0.05, 1.0]),
)
@settings(deadline=None, max_examples=40)
def test_rows_sum_to_one_and_nothing_overflows_at_any_epsilon(
    seed: int, rows: int, prototypes: int, epsilon: float
) -> None:
    scores = 2 * torch.rand(rows, prototypes, generator=torch.Generator().manual_seed(seed)) - 1
    assignments = sinkhorn(scores, epsilon=epsilon, num_iterations=3)
    assert bool(torch.isfinite(assignments).all())
    torch.testing.assert_close(assignments.sum(1), torch.ones(rows))


@given(seed=st.integers(0, 1000), rows=st.integers(2, 30), prototypes=st.integers(2, 12))
@settings(deadline=None, max_examples=20)
def test_in_the_limit_all_prototypes_are_used_alike(seed: int, rows: int, prototypes: int) -> None:
    scores = torch.rand(rows, prototypes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assignments = sinkhorn(scores, epsilon=0.2, num_iterations=2000)
    shares = assignments.sum(0)
    torch.testing.assert_close(shares, torch.full_like(shares, rows / prototypes), rtol=1e-6, atol=0)


def test_sinkhorn_is_the_plain_one_written_from_the_paper() -> None:
    torch.manual_seed(0)
    scores = torch.randn(9, 5, dtype=torch.float64)
    q = (scores / 0.3).exp().T
    q /= q.sum()
    for _ in range(4):
        for prototype in range(5):
            q[prototype] /= 5 * q[prototype].sum()
        for row in range(9):
            q[:, row] /= 9 * q[:, row].sum()
    torch.testing.assert_close(sinkhorn(scores, epsilon=0.3, num_iterations=4), 9 * q.T, rtol=1e-12, atol=1e-14)


# ---- The loss ----


@pytest.mark.parametrize(("num_global", "num_local"), [(2, 0), (2, 3), (3, 2)])
@pytest.mark.parametrize("weight", [None, 0.4])
def test_the_loss_is_that_of_a_loop_over_pairs(num_global: int, num_local: int, weight: float | None) -> None:
    torch.manual_seed(1)
    scores = torch.randn(num_global + num_local, 4, 6, dtype=torch.float64)
    assignments = torch.randn(num_global, 4, 6, dtype=torch.float64).softmax(-1)
    terms: dict[bool, list[float]] = {True: [], False: []}
    for g in range(num_global):
        for v in range(num_global + num_local):
            if v == g:
                continue
            rows = [-float(assignments[g, i] @ (scores[v, i] / 0.1).log_softmax(0)) for i in range(4)]
            terms[v < num_global].append(sum(rows) / 4)
    every = terms[True] + terms[False]
    expected = sum(every) / len(every)
    if weight is not None and num_local:
        means = [sum(pairs) / len(pairs) for pairs in terms.values()]
        expected = weight * means[0] + (1 - weight) * means[1]
    loss = swav_loss(scores, assignments, temperature=0.1, global_pair_weight=weight)
    assert_near(loss, expected, 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["what"] == "loss"])
def test_loss_gradient_assignments_and_queue_are_the_recorded_ones(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    case, arrays = CASES[name], read_arrays(f"swav/{name}.npz")
    exact = case["float64_scalars"]
    method = method_of(case).to(dtype)
    if case["queue"]:
        method.queue.copy_(arrays["in.queue"])
        method.set_extra_state({"queue_filled": case["fill"]})
    for call in range(case["calls"]):
        if case["queue"]:
            assert method.queue_is_full == bool(arrays["out.queue_used"][call])
        inputs = (arrays[f"in.{part}.{call}"].to(dtype) for part in ("embeddings", "scores", "prototypes"))
        results = step(method, case["B"], *inputs)
        for key in ("loss", "global_term", "local_term"):
            assert_near(results[key], exact[f"out.{key}.{call}"], 1e-9 if dtype == torch.float64 else 1e-5, key)
        for key in ("grad_scores", "assignments", "queue"):
            if key == "queue" and not case["queue"]:
                assert f"out.queue.{call}" not in arrays
                continue
            actual = results[key].flatten(0, 1) if key == "grad_scores" and results[key].ndim == 3 else results[key]
            assert_near(actual, arrays[f"out.{key}.{call}"], tolerance, key)
        scores = by_view(arrays[f"in.scores.{call}"].to(dtype), case["B"])
        whole = swav_loss(scores, results["assignments"], temperature=0.1, global_pair_weight=case["lambdas"][0])
        assert_near(whole, results["loss"], 1e-6, "the loss in one")


# ---- Two processes ----


SCORES = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _two_processes(rank: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        arrays = read_arrays("two_processes/two_processes.npz")
        case = read_json("two_processes/cases.json")["swav"]
        # The original has a queue of 8 a process; ours is one of 16, the batches of both processes in turn.
        method = method_of(case, queue_size=2 * case["queue"]).double()
        method.queue.copy_(one_queue([arrays[f"swav.in.queue.rank{r}"] for r in range(2)], case["B"]))
        method.set_extra_state({"queue_filled": 2 * case["fill"]})
        results: dict[str, Tensor] = {}
        for call in range(case["calls"]):
            results[f"queue_used.{call}"] = torch.tensor(method.queue_is_full)
            embeddings, scores = (
                arrays[f"swav.in.{key}.{call}.rank{rank}"].double() for key in ("embeddings", "scores")
            )
            made = step(method, case["B"], embeddings, scores, arrays[f"swav.in.prototypes.{call}"].double())
            results |= {f"{key}.{call}": value for key, value in made.items() if "term" not in key}
        torch.save(results, f"{out}.{rank}")
        shares = SCORES[:2], SCORES[2:]
        torch.save(sinkhorn(shares[rank], epsilon=0.1, num_iterations=3), f"{out}.{rank}.shares")
    finally:
        dist.destroy_process_group()


def one_queue(queues: list[Tensor], batch: int) -> Tensor:
    """The queues of the processes ``[G, Q, D]`` as one, newest first."""
    blocks = [queue.reshape(len(queue), -1, batch, queue.shape[2]) for queue in queues]
    return torch.stack(blocks, dim=2).flatten(1, 3)


def test_two_processes_assign_together_and_share_a_queue_as_recorded(tmp_path: Path) -> None:
    spawn(_two_processes, (str(tmp_path / "store"), str(tmp_path / "out")), nprocs=2)  # type: ignore[no-untyped-call]
    arrays = read_arrays("two_processes/two_processes.npz")
    case = read_json("two_processes/cases.json")["swav"]
    for rank in range(2):
        results = torch.load(tmp_path / f"out.{rank}", weights_only=True)
        for name, value in results.items():
            if name.startswith("queue."):
                queues = [arrays[f"swav.out.{name}.rank{r}"] for r in range(2)]
                assert_near(value, one_queue(queues, case["B"]), 1e-6, name)
            else:
                expected = arrays[f"swav.out.{name}.rank{rank}"]
                assert_near(value.double(), expected.double(), 1e-6, f"{name} of process {rank}")
    # However unequally the rows are split, the assignments are the same.
    shares = [torch.load(tmp_path / f"out.{rank}.shares", weights_only=True) for rank in range(2)]
    whole = sinkhorn(SCORES, epsilon=0.1, num_iterations=3)
    torch.testing.assert_close(torch.cat(shares), whole, rtol=1e-12, atol=1e-14)


# ---- The method ----


def swav(**changes: Any) -> SwAV:
    torch.manual_seed(0)
    head = SwAVHead(5, num_layers=2, hidden_dim=8, output_dim=4, num_prototypes=12, batch_norm=True)
    arguments: dict[str, Any] = {
        "num_global": 2,
        "num_local": 3,
        "temperature": 0.1,
        "epsilon": 0.05,
        "num_iterations": 3,
        "queue_size": 10,
        "global_pair_weight": 0.4,
    }
    return SwAV(Network(Pool(), head), **{**arguments, **changes})


def test_a_step_gives_loss_indicators_and_features_of_the_first_view() -> None:
    method = swav()
    method.begin_step(VALUES)
    reference = copy.deepcopy(method)
    output = method(*views(), VALUES)
    features, (_, scores) = reference.network(*views())
    scores = by_view(scores, 4)
    assignments = torch.stack([sinkhorn(s.detach(), epsilon=0.05, num_iterations=3) for s in scores[:2]])
    torch.testing.assert_close(output.loss, swav_loss(scores, assignments, temperature=0.1, global_pair_weight=0.4))
    torch.testing.assert_close(output.features, features[:4].detach())
    assert not output.features.requires_grad
    assert set(output.scalars) == {"prototypes_used", "assignment_entropy", "global_loss", "local_loss"}
    assert not any(value.requires_grad or value.ndim for value in output.scalars.values())
    used = len(set(assignments.argmax(-1).flatten().tolist())) / min(12, 8)
    assert float(output.scalars["prototypes_used"]) == pytest.approx(used)
    entropy = torch.special.entr(assignments).sum(-1).mean() / torch.tensor(12.0).log()
    torch.testing.assert_close(output.scalars["assignment_entropy"], entropy)


def test_prototypes_are_put_on_the_unit_sphere_before_each_step() -> None:
    method = swav()
    with torch.no_grad():
        method.network.head.prototypes.weight.mul_(3)
    method.begin_step(VALUES)
    torch.testing.assert_close(method.network.head.prototypes.weight.detach().norm(dim=1), torch.ones(12))
    embeddings, scores = method.network.head(torch.randn(6, 5))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
    assert float(scores.detach().abs().max()) <= 1 + 1e-6


def test_prototypes_are_frozen_while_asked_for() -> None:
    method = swav()
    assert method.frozen_parameters(VALUES) == []
    frozen = method.frozen_parameters(StepValues(freeze_last_layer=True))
    assert [name for name, p in method.named_parameters() if any(p is f for f in frozen)] == [
        "network.head.prototypes.weight"
    ]


def test_all_linear_layers_start_with_a_hundredth() -> None:
    torch.manual_seed(0)
    head = SwAVHead(64, num_layers=2, hidden_dim=128, output_dim=32, num_prototypes=100, batch_norm=True)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)


def test_a_queue_of_any_size_fills_from_its_start_and_is_used_once_full() -> None:
    method = swav(queue_size=10)  # two and a half batches of four
    full = []
    seen: list[Tensor] = []
    method.network.head.register_forward_hook(lambda _, __, output: seen.insert(0, by_view(output[0].detach()[:8], 4)))
    for _ in range(4):
        method.begin_step(VALUES)
        with torch.no_grad():
            method.get_parameter("network.head.mlp.3.bias").add_(0.1)  # so that each step's embeddings are others
        full.append(method.queue_is_full)
        method(*views(), VALUES)
        method.end_step(VALUES)
    assert full == [False, False, False, True]
    assert torch.equal(method.queue, torch.cat(seen, dim=1)[:, :10])
    late = swav()
    late.begin_step(StepValues())
    late(*views(), StepValues())
    late.end_step(StepValues())
    assert not late.queue.any()
    assert not late.queue_is_full


def test_a_full_queue_is_left_alone_outside_its_epochs() -> None:
    method = swav(queue_size=4)
    for _ in range(2):
        method.begin_step(VALUES)
        method(*views(), VALUES)
        method.end_step(VALUES)
    scores = torch.randn(2, 4, 12)
    without = torch.stack([sinkhorn(s, epsilon=0.05, num_iterations=3) for s in scores])
    assert torch.equal(method.assign(scores, use_queue=False), without)
    assert not torch.equal(method.assign(scores, use_queue=True), without)


def test_parts_of_a_batch_all_go_into_the_queue() -> None:
    method = swav(queue_size=8).eval()
    global_views, local_views = views()
    assert local_views is not None
    method.begin_step(VALUES)
    for start in (0, 2):
        chunks = [
            x.reshape(-1, 4, *x.shape[1:])[:, start : start + 2].flatten(0, 1) for x in (global_views, local_views)
        ]
        method(*chunks, VALUES)
    method.end_step(VALUES)
    with torch.no_grad():
        embeddings, _ = method.network.head(method.network.backbone(global_views))
    torch.testing.assert_close(method.queue[:, :4], by_view(embeddings, 4))
    assert method.get_extra_state() == {"queue_filled": 4}


def test_no_queue_is_no_queue() -> None:
    method = swav(queue_size=0)
    method.begin_step(VALUES)
    method(*views(), VALUES)
    method.end_step(VALUES)
    assert not method.queue_is_full


def test_without_local_views_the_loss_is_that_of_the_global_pairs() -> None:
    output = swav(num_local=0)(*views(num_local=0), VALUES)
    assert "local_loss" not in output.scalars
    torch.testing.assert_close(output.loss.detach(), output.scalars["global_loss"])


def test_views_that_do_not_match_the_counts_are_an_error() -> None:
    with pytest.raises(AssertionError):
        swav()(*views(num_local=2), VALUES)


def test_the_state_dict_is_the_whole_truth_and_loads_as_plain_weights() -> None:
    def run(method: SwAV, steps: int) -> float:
        loss = 0.0
        for _ in range(steps):
            method.begin_step(VALUES)
            output = method(*views(), VALUES)
            method.zero_grad()
            output.loss.backward()
            with torch.no_grad():
                for p in method.parameters():
                    assert p.grad is not None
                    p.sub_(p.grad, alpha=0.1)
            method.end_step(VALUES)
            loss = float(output.loss.detach())
        return loss

    method = swav()
    run(method, 3)
    assert method.queue_is_full
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other = swav()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.queue_is_full
    assert run(method, 2) == run(other, 2)


def test_scores_and_assignments_stay_in_float32_under_autocast() -> None:
    method = swav(queue_size=4)
    for _ in range(2):
        method.begin_step(VALUES)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = method(*views(), VALUES)
            embeddings, scores = method.network.head(torch.randn(2, 5))
            assigned = method.assign(torch.randn(2, 4, 12), use_queue=True)
        method.end_step(VALUES)
        assert {x.dtype for x in (output.loss, embeddings, scores, assigned, method.queue)} == {torch.float32}


def test_half_precision_scores_give_a_float32_loss() -> None:
    scores = torch.randn(4, 3, 8)
    exact = swav_pair_means(scores.bfloat16().double(), scores[:2].softmax(-1), temperature=0.1).scalars
    ours = swav_pair_means(scores.bfloat16(), scores[:2].softmax(-1), temperature=0.1).scalars
    assert set(ours) == {"global_loss", "local_loss"}
    for name, mean in ours.items():
        assert mean.dtype == torch.float32
        assert_near(mean, exact[name], 1e-5)


def test_the_one_backbone_is_the_one_to_export() -> None:
    method = swav()
    assert list(method.networks) == ["network"]
    assert method.backbone is method.network.backbone
    assert {f"network.backbone.{key}" for key in method.backbone.state_dict()} <= set(method.state_dict())
