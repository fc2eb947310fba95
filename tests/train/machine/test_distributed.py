"""Two processes measure what one measures: features, steps, and results."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslight.config import EvaluateSettings, build
from sslight.evaluate.classifiers.linear_probe import LinearProbes, new_linear
from sslight.evaluate.run import run_evaluation
from sslight.train import place
from tests.processes import in_two

# A network without batch norm, whose statistics differ between one process and two on a CPU. 33 and 21 images: a
# padded split would count some twice.
SHARED = {
    "data.train": "synthetic:33",
    "data.val": "synthetic:21:val",
    "image_size": 160,
    "feature_batch_size": 4,
}
RUNS: dict[str, dict[str, Any]] = {
    "knn": {"knn.k": [1, 20]},
    "linear": {"linear.epochs": 2, "linear.lr": [0.01, 1.0], "linear.batch_size": 16},
    "semi": {"semi.epochs": 1, "semi.batch_size": 14, "semi.lr": 0.3},
}


def settings(protocol: str, folder: Path) -> EvaluateSettings:
    places = (
        {"output": folder / protocol, "cache": folder / "cache"} if protocol != "semi" else {"output": folder / "semi"}
    )
    return build(EvaluateSettings, {**SHARED, **RUNS[protocol], **places}, protocol=protocol, model="timm:test_vit")


def one_of_all() -> Fabric:
    """Fabric of this process, which torchrun's variables make one of two."""
    placement = place("cpu")
    fabric = Fabric(
        accelerator="cpu", devices=placement.world_size, strategy="ddp" if placement.world_size > 1 else "auto"
    )
    fabric.launch()
    return fabric


def evaluate_all(folder: Path) -> None:
    for protocol in RUNS:
        run_evaluation(settings(protocol, folder), fabric=one_of_all(), workers=0, show_progress=False)


def batches(dim: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, dim, generator=generator), torch.randint(0, 4, (8,), generator=generator)) for _ in range(4)
    ]


def new_probes() -> LinearProbes:
    probes = LinearProbes([0.5, 2.0], new_linear(6, 4, seed=0), optimizer="lars")
    probes.set_rates(0, total_steps=9, min_lr=0)
    return probes


def step(probes: LinearProbes, wrapped: nn.Module, features: Tensor, labels: Tensor, held_out: Tensor) -> Tensor:
    """One step; the losses of the final classifiers over all processes."""
    probes.optimizer.zero_grad()
    final, trial = wrapped(features, labels, held_out)
    (final.sum() + trial.sum()).backward()
    probes.optimizer.step()
    losses: Tensor = final.detach()
    if dist.is_initialized():
        dist.all_reduce(losses)
        losses /= dist.get_world_size()
    return losses


def one_of_two(folder: str) -> None:
    evaluate_all(Path(folder) / "two")
    probes, losses = new_probes(), []
    wrapped = DistributedDataParallel(probes)
    for number, (features, labels) in enumerate(batches()):
        end = 8 if number == 3 else 5  # the second process has nothing in the last step
        own = slice(0, end) if dist.get_rank() == 0 else slice(end, 8)
        losses.append(step(probes, wrapped, features[own], labels[own], (torch.arange(8) % 3 == 0)[own]))
    if dist.get_rank() == 0:
        state = {"final": probes.final.state_dict(), "trial": probes.trial.state_dict(), "losses": torch.stack(losses)}
        torch.save(state, f"{folder}/probes.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one process in ``one`` and of two in ``two``."""
    path = tmp_path_factory.mktemp("processes")
    in_two(one_of_two, str(path))
    evaluate_all(path / "one")
    return path


@pytest.mark.parametrize("protocol", RUNS)
def test_results_are_the_same(protocol: str, folder: Path) -> None:
    one, two = (json.loads((folder / n / protocol / "results.json").read_text()) for n in ("one", "two"))
    for part in ("accuracy", "by_k", "per_class", "checkpoint", "data"):
        assert one.get(part) == two.get(part), part
    for file in {"knn": [], "linear": ["classifier"], "semi": ["classifier", "backbone"]}[protocol]:
        states = [safetensors.torch.load_file(folder / n / protocol / f"{file}.safetensors") for n in ("one", "two")]
        for name, value in states[0].items():
            torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_what_two_processes_put_in_the_cache_one_process_uses(folder: Path) -> None:
    before = sorted((folder / "two" / "cache").iterdir())
    used = settings("knn", folder / "two").model_copy(update={"output": folder / "again"})
    run_evaluation(used, fabric=one_of_all(), workers=0, show_progress=False)
    assert sorted((folder / "two" / "cache").iterdir()) == before
    one, two = (sorted((folder / n / "cache").iterdir()) for n in ("one", "two"))
    assert [entry.name for entry in one] == [entry.name for entry in two]


def test_probes_learn_as_one_even_where_a_process_has_no_images(folder: Path) -> None:
    together, alone = torch.load(folder / "probes.pt", weights_only=True), new_probes()
    losses = [step(alone, alone, x, y, torch.arange(8) % 3 == 0) for x, y in batches()]
    for kind in ("final", "trial"):
        for name, value in getattr(alone, kind).state_dict().items():
            torch.testing.assert_close(together[kind][name], value)
    torch.testing.assert_close(together["losses"], torch.stack(losses))
