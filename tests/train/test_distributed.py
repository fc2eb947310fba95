"""Two processes measure what one measures: features, steps, and results."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from sslight.config import EvaluateSettings, build_evaluate_settings
from sslight.evaluate import run_evaluation
from sslight.evaluate.linear_probe import LinearProbes, new_linear

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
    return build_evaluate_settings(protocol, "timm:test_vit", {**SHARED, **RUNS[protocol], **places})


def evaluate_all(folder: Path) -> None:
    for protocol in RUNS:
        run_evaluation(settings(protocol, folder), device=torch.device("cpu"), workers=0, show_progress=False)


def batches(dim: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, dim, generator=generator), torch.randint(0, 4, (8,), generator=generator)) for _ in range(4)
    ]


def new_probes() -> LinearProbes:
    probes = LinearProbes.build([0.5, 2.0], new_linear(6, 4, seed=0), optimizer="lars")
    probes.set_rates(0, total_steps=9, min_lr=0)
    return probes


def in_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    evaluate_all(Path(folder) / "two")
    probes, losses = new_probes(), []
    for number, (features, labels) in enumerate(batches()):
        end = 8 if number == 3 else 5  # the second process has nothing in the last step
        own = slice(0, end) if rank == 0 else slice(end, 8)
        losses.append(probes.step(features[own], labels[own], (torch.arange(8) % 3 == 0)[own]))
    if rank == 0:
        state = {"final": probes.final.state_dict(), "trial": probes.trial.state_dict(), "losses": torch.stack(losses)}
        torch.save(state, f"{folder}/probes.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one process in ``one`` and of two in ``two``."""
    path = tmp_path_factory.mktemp("processes")
    spawn(in_two, args=(str(path),), nprocs=2)  # type: ignore[no-untyped-call]
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
    run_evaluation(used, device=torch.device("cpu"), workers=0, show_progress=False)
    assert sorted((folder / "two" / "cache").iterdir()) == before
    one, two = (sorted((folder / n / "cache").iterdir()) for n in ("one", "two"))
    assert [entry.name for entry in one] == [entry.name for entry in two]


def test_probes_learn_as_one_even_where_a_process_has_no_images(folder: Path) -> None:
    together, alone = torch.load(folder / "probes.pt", weights_only=True), new_probes()
    losses = [alone.step(x, y, torch.arange(8) % 3 == 0) for x, y in batches()]
    for kind in ("final", "trial"):
        for name, value in getattr(alone, kind).state_dict().items():
            torch.testing.assert_close(together[kind][name], value)
    torch.testing.assert_close(together["losses"], torch.stack(losses))
