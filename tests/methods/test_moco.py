"""MoCo: logits, loss, keys and queue against the recorded ones, and what a step does."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslight.config import load_recipe
from sslight.methods import (
    MoCo,
    Network,
    StepValues,
    build_method,
    koleo_loss,
    moco_logits,
    moco_loss,
    moco_pair_means,
    projection_mlp,
)
from tests.golden import assert_near, read_arrays, read_json
from tests.methods.test_dino import Pool, by_view, views

CASES = read_json("moco/cases.json")
VALUES = StepValues(momentum=0.9)


def method_of(case: dict[str, Any]) -> MoCo:
    """A MoCo whose networks pass embeddings through, as recorded."""
    return MoCo(
        Network(nn.Identity(), nn.Identity()),
        Network(nn.Identity(), nn.Identity()),
        num_local=case["n_local"],
        embedding_dim=case["D"],
        temperature=0.2,
        queue_size=case["K"],
        global_pair_weight=case["lambdas"][0],
    )


def step(method: MoCo, raw_queries: Tensor, raw_keys: Tensor) -> dict[str, Tensor]:
    """A step on recorded embeddings."""
    batch = len(raw_keys)
    raw_queries = raw_queries.clone().requires_grad_()
    global_rows = torch.cat([raw_keys, raw_queries[:batch]])
    output = method(global_rows, raw_queries[batch:] if method.num_local else None, VALUES)
    (gradient,) = torch.autograd.grad(output.loss, raw_queries)
    queries = F.normalize(raw_queries.detach(), dim=1)
    results = {"loss": output.loss.detach(), "grad_q_raw": gradient, "q": queries, "k": method._seen[0]}
    logits = moco_logits(by_view(queries, batch), method._seen[0], method.queue, temperature=0.2)
    results |= {"logits": logits.flatten(0, 1), "global_term": output.scalars["global_loss"]}
    if method.num_local:
        results["local_term"] = output.scalars["local_loss"]
    queries.requires_grad_()
    weight = method.global_pair_weight
    whole = moco_loss(
        by_view(queries, batch), method._seen[0], method.queue, temperature=0.2, global_pair_weight=weight
    )
    assert_near(whole, results["loss"], 1e-6, "the loss in one")
    (results["grad_q"],) = torch.autograd.grad(whole, queries)
    method.end_step(VALUES)
    return {**results, "queue": method.queue.clone(), "queue_ptr": method.queue_pointer.clone()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_logits_loss_gradients_and_queue_are_the_recorded_ones(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case, arrays = CASES[name], read_arrays(f"moco/{name}.npz")
    exact = case["float64_scalars"]
    method = method_of(case).to(dtype)
    method.queue.copy_(arrays["in.queue"])
    method.queue_pointer.copy_(arrays["in.queue_ptr"])
    assert int(method.queue_pointer) == case["ptr"]
    for call in range(case["calls"]):
        results = step(method, *(arrays[f"in.{key}.{call}"].to(dtype) for key in ("q_raw", "k_raw")))
        assert not arrays[f"out.labels.{call}"].any()
        for key, value in results.items():
            if f"out.{key}.{call}" in exact:
                assert_near(value, exact[f"out.{key}.{call}"], 1e-9 if dtype == torch.float64 else 1e-5, key)
            elif f"out.{key}.{call}" in arrays:
                assert_near(value, arrays[f"out.{key}.{call}"], tolerance, key)
            else:
                assert key == "global_term"  # not recorded where it is the whole loss
                assert case["global_only"]


@pytest.mark.parametrize("num_local", [0, 1, 4])
@pytest.mark.parametrize("weight", [None, 0.4])
def test_the_loss_is_that_of_a_loop_over_queries(num_local: int, weight: float | None) -> None:
    torch.manual_seed(0)
    queries = F.normalize(torch.randn(1 + num_local, 3, 4, dtype=torch.float64), dim=-1)
    keys, queue = F.normalize(torch.randn(3, 4).double(), dim=1), F.normalize(torch.randn(4, 6).double(), dim=0)
    losses = []
    for query in queries:
        for i in range(3):
            similarities = [query[i] @ keys[i], *(query[i] @ queue[:, j] for j in range(6))]
            weights = [(s / 0.2).exp() for s in similarities]
            losses.append(-(weights[0] / torch.stack(weights).sum()).log() / 3)
    by_query = [sum(losses[i : i + 3]) for i in range(0, len(losses), 3)]
    expected = sum(by_query) / len(by_query)
    if weight is not None and num_local:
        expected = weight * by_query[0] + (1 - weight) * sum(by_query[1:]) / num_local
    loss = moco_loss(queries, keys, queue, temperature=0.2, global_pair_weight=weight)
    assert_near(loss, expected, 1e-12)


# ---- Two processes ----


class NormPool(nn.Module):
    """Batch norm and nothing else: what comes out tells which images shared its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(x.detach().clone())
        features: Tensor = self.bn(x)
        return features


def _two_processes(rank: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        arrays = read_arrays("two_processes/two_processes.npz")
        case = read_json("two_processes/cases.json")["moco"]
        method = method_of(case).double()
        method.queue.copy_(arrays["moco.in.queue"])
        method.queue_pointer.copy_(arrays["moco.in.queue_ptr"])
        results: dict[str, Tensor] = {}
        for call in range(case["calls"]):
            inputs = [arrays[f"moco.in.{key}.{call}.rank{rank}"].double() for key in ("q_raw", "k_raw")]
            made = step(method, *inputs)
            wanted = ("loss", "k", "logits", "grad_q_raw", "queue", "queue_ptr")
            results |= {f"{key}.{call}": made[key] for key in wanted}
        # With batch norm of each process's own, the keys' images are shuffled over the processes.
        torch.manual_seed(rank)  # the order is the first process's all the same
        method.key.backbone = NormPool()
        method.key.train()
        results["views"] = torch.randn(16, 3, generator=torch.Generator().manual_seed(rank)) + 10 * rank
        results["keys"] = method.embed_keys(results["views"])
        results["batch"] = method.key.backbone.batches[0]
        torch.save(results, f"{out}.{rank}")
    finally:
        dist.destroy_process_group()


def test_two_processes_share_the_recorded_queue_and_shuffle_the_keys_images(tmp_path: Path) -> None:
    spawn(_two_processes, (str(tmp_path / "store"), str(tmp_path / "out")), nprocs=2)  # type: ignore[no-untyped-call]
    arrays = read_arrays("two_processes/two_processes.npz")
    found = [torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in range(2)]
    for rank, results in enumerate(found):
        for name, value in results.items():
            if name in {"views", "keys", "batch"}:
                continue
            shared = name.startswith("queue")
            expected = arrays[f"moco.out.{name}" if shared else f"moco.out.{name}.rank{rank}"]
            assert_near(value, expected, 1e-6, f"{name} of process {rank}")
    everything = torch.cat([results["views"] for results in found])
    batches = [results["batch"] for results in found]
    for batch in batches:
        assert len(batch) == 16
        assert bool((batch.mean(1) > 5).any())  # of the second process
        assert bool((batch.mean(1) < 5).any())  # of the first
    assert torch.equal(torch.cat(batches).sort(0).values, everything.sort(0).values)
    # Each image's key is that of the batch in which it was, in the order of the views.
    key_of: dict[tuple[float, ...], Tensor] = {}
    for batch in batches:
        normed = F.normalize((batch - batch.mean(0)) / (batch.var(0, unbiased=False) + 1e-5).sqrt(), dim=1)
        key_of |= {tuple(row.tolist()): key for row, key in zip(batch, normed, strict=True)}
    for results in found:
        expected = torch.stack([key_of[tuple(row.tolist())] for row in results["views"]])
        torch.testing.assert_close(results["keys"], expected, rtol=1e-4, atol=1e-5)


# ---- The method ----


def moco(**changes: Any) -> MoCo:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "num_local": 3,
        "embedding_dim": 4,
        "temperature": 0.2,
        "queue_size": 8,
        "global_pair_weight": 0.4,
    }
    query, key = (
        Network(Pool(), projection_mlp(5, num_layers=2, hidden_dim=8, out_dim=4, batch_norm=False, activation=nn.ReLU))
        for _ in range(2)
    )
    return MoCo(query, key, **{**arguments, **changes})


def test_the_key_network_starts_as_a_copy_that_is_not_trained_and_follows_before_the_forward_pass() -> None:
    method = moco()
    for key, value in method.query.state_dict().items():
        assert torch.equal(method.key.state_dict()[key], value)
    assert not any(p.requires_grad for p in method.key.parameters())
    before = [p.clone() for p in method.key.parameters()]
    with torch.no_grad():
        for p in method.query.parameters():
            p.add_(1.0)
    method.begin_step(VALUES)
    for old, new, query in zip(before, method.key.parameters(), method.query.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * query.detach())


def test_a_step_gives_loss_indicators_and_features_of_the_first_query_view() -> None:
    method = moco()
    method.begin_step(VALUES)
    reference = copy.deepcopy(method)
    output = method(*views(), VALUES)
    global_views, local_views = views()
    features, queries = reference.query(global_views[4:], local_views)
    _, keys = reference.key(global_views[:4])
    queries, keys = F.normalize(by_view(queries, 4), dim=-1), F.normalize(keys, dim=-1)
    expected = moco_loss(queries, keys, method.queue, temperature=0.2, global_pair_weight=0.4)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.features, features[:4].detach())
    assert not output.features.requires_grad
    assert set(output.scalars) == {"key_similarity", "contrast_top1", "global_loss", "local_loss"}
    assert not any(value.requires_grad or value.ndim for value in output.scalars.values())
    similarity = (queries[0] * keys).sum(-1)
    torch.testing.assert_close(output.scalars["key_similarity"], similarity.mean().detach())
    nearest = (similarity[:, None] > queries[0] @ method.queue).all(1).float().mean()
    torch.testing.assert_close(output.scalars["contrast_top1"], 100 * nearest)


def test_only_the_query_network_gets_gradients() -> None:
    method = moco()
    method(*views(), VALUES).loss.backward()
    assert all(p.grad is not None for p in method.query.parameters())
    assert all(p.grad is None for p in method.key.parameters())
    assert method.frozen_parameters(VALUES) == []


def test_keys_go_into_the_queue_after_the_step_and_the_pointer_goes_round() -> None:
    method = moco(queue_size=8)
    pointers, old = [], method.queue.clone()
    for _ in range(3):
        method.begin_step(VALUES)
        with torch.no_grad():
            method.get_parameter("key.head.2.bias").add_(0.5)  # so that each step's keys are others
        method(*views(), VALUES)
        assert torch.equal(method.queue, old)
        start, keys = int(method.queue_pointer), method._seen[0].clone()
        method.end_step(VALUES)
        torch.testing.assert_close(method.queue[:, start : start + 4], keys.T)
        others = [i for i in range(8) if not start <= i < start + 4]
        assert torch.equal(method.queue[:, others], old[:, others])
        pointers.append(int(method.queue_pointer))
        old = method.queue.clone()
    assert pointers == [4, 0, 4]
    torch.testing.assert_close(method.queue.norm(dim=0), torch.ones(8))


def test_parts_of_a_batch_all_go_into_the_queue() -> None:
    whole, parts = moco().eval(), moco().eval()  # evaluation mode: batch norm must not couple the images
    global_views, local_views = views()
    assert local_views is not None
    whole.begin_step(VALUES)
    loss = whole(global_views, local_views, VALUES).loss
    whole.end_step(VALUES)
    parts.begin_step(VALUES)
    losses = []
    for start in (0, 2):
        chunks = [
            x.reshape(-1, 4, *x.shape[1:])[:, start : start + 2].flatten(0, 1) for x in (global_views, local_views)
        ]
        losses.append(parts(*chunks, VALUES).loss)
    parts.end_step(VALUES)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(parts.queue, whole.queue)
    assert torch.equal(parts.queue_pointer, whole.queue_pointer)


def test_an_interrupted_step_leaves_no_trace_in_the_next() -> None:
    method = moco()
    method(*views(), VALUES)  # never ended
    method.begin_step(VALUES)
    method(*views(), VALUES)
    method.end_step(VALUES)
    assert int(method.queue_pointer) == 4


def test_the_networks_run_on_batch_statistics_with_buffers_of_their_own() -> None:
    method = moco()
    method(*views(), VALUES)
    query, key = method.query.backbone, method.key.backbone
    assert isinstance(query, Pool)
    assert isinstance(key, Pool)
    assert int(query.bn.num_batches_tracked or 0) == 2  # the global query, then local views
    assert int(key.bn.num_batches_tracked or 0) == 1


def test_two_views_alone_are_moco_as_published() -> None:
    method = moco(num_local=0)
    output = method(*views(num_local=0), VALUES)
    assert "local_loss" not in output.scalars
    torch.testing.assert_close(output.loss.detach(), output.scalars["global_loss"])


def test_views_that_do_not_match_the_counts_are_an_error() -> None:
    with pytest.raises(AssertionError):
        moco()(*views(num_local=2), VALUES)


def test_the_state_dict_is_the_whole_truth_and_loads_as_plain_weights() -> None:
    def run(method: MoCo, steps: int) -> float:
        loss = 0.0
        for _ in range(steps):
            method.begin_step(VALUES)
            output = method(*views(), VALUES)
            method.zero_grad()
            output.loss.backward()
            with torch.no_grad():
                for p in method.query.parameters():
                    assert p.grad is not None
                    p.sub_(p.grad, alpha=0.1)
            method.end_step(VALUES)
            loss = float(output.loss.detach())
        return loss

    method = moco()
    run(method, 3)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other = moco()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert {"queue", "queue_pointer"} <= set(method.state_dict())
    assert run(method, 2) == run(other, 2)


def test_loss_keys_and_queue_stay_in_float32_under_autocast() -> None:
    method = moco()
    method.begin_step(VALUES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(*views(), VALUES)
    assert {x.dtype for x in (output.loss, method._seen[0], method.queue)} == {torch.float32}
    queries = F.normalize(torch.randn(2, 3, 4), dim=-1).bfloat16()
    means = moco_pair_means(moco_logits(queries, queries[0], torch.randn(4, 6), temperature=0.2))
    assert means.global_mean.dtype == torch.float32


def test_the_backbone_to_export_is_the_querys() -> None:
    method = moco()
    assert list(method.networks) == ["query", "key"]
    assert method.backbone is method.query.backbone
    keys = set(method.state_dict())
    for name, backbone in method.networks.items():
        assert {f"{name}.backbone.{key}" for key in backbone.state_dict()} <= keys


def test_koleo_of_the_global_query_is_added_to_the_loss_and_changes_no_other_figure() -> None:
    settings = {"backbone": "test_resnet", "views.global_size": 32, "views.local_size": 16, "probe.knn": True}
    torch.manual_seed(0)
    built = build_method(load_recipe("moco_cnn_sslight_64", {**settings, "moco.koleo_weight": 0.5}))
    assert isinstance(built, MoCo)
    plain = copy.deepcopy(built)
    plain.koleo_weight = 0.0
    images = torch.randn(2 * 4, 3, 32, 32), torch.randn(2 * 4, 3, 16, 16)
    without, output = (method(*images, VALUES) for method in (plain, built))
    koleo = koleo_loss(without.features)
    torch.testing.assert_close(output.loss, without.loss + 0.5 * koleo)
    torch.testing.assert_close(output.scalars.pop("koleo_loss"), koleo)
    assert output.scalars == without.scalars
    output.loss.backward()
    leaves = list(plain.query.backbone.parameters())
    features, _ = plain.query(images[0][4:], images[1])  # batch statistics do not depend on earlier calls
    spread = torch.autograd.grad(0.5 * koleo_loss(features[:4]), leaves)
    contrast = torch.autograd.grad(without.loss, leaves)
    for one, two, leaf in zip(spread, contrast, built.query.backbone.parameters(), strict=True):
        torch.testing.assert_close(leaf.grad, one + two, rtol=1e-4, atol=1e-5)
