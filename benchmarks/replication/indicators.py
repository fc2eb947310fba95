"""Which figure of a run's first tenth foretells its final accuracies?

    python benchmarks/replication/indicators.py [RESULTS ...]

RESULTS are files as the queue writes them (default: all in ``results/``). Runs of this program's methods from new
weights on the same images, with the same method and network, and of about the same length (half to twice that named)
are a group, whatever else they differ in and whichever plan they belong to; groups of six and more have a table: the
rank correlation (Spearman) of the indicators at a tenth of the run with its final kNN and linear accuracy, with a 95 %
interval by drawing the runs again. Seeds differ in both without the one foretelling the other, so everything is taken
less its seed's mean, and seeds with one run are left out. ``own kNN`` is that of the run's own curve at its end, of
training images; ``gain`` is that curve at a tenth less before the first step. Candidates of `candidates.py` are left
out: their targets are others; losses are not compared, since those of other views and weights are others too.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from page import read_result
from scipy.stats import rankdata

from sslight.config import load_recipe

RESULTS = Path(__file__).parent / "results"
INDICATORS = (
    *("teacher_entropy", "target_spread", "divergence", "feature_spread", "effective_rank", "grad_norm"),
    *("prototypes_used", "assignment_entropy", "key_similarity", "contrast_top1"),
)
FEWEST, AT, DRAWS = 6, 0.1, 2000
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Print a table for each group."""
    files = [Path(word) for word in sys.argv[1:]] or sorted(RESULTS.glob("*.json"))
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for file in files:
        result = read_result(file)
        if result is None:
            continue
        ours = result["code"].startswith(("sslight", "candidate koleo", "candidate muon"))  # settings now, all of them
        if ours and result["curve"] and "knn" in result["measured"] and "init_from" not in result["settings"]:
            groups.setdefault(group_of(result), []).append(result)
    for group, found in groups.items():
        seeds = Counter(result["seed"] for result in found)
        results = [result for result in found if seeds[result["seed"]] > 1]
        if len(results) >= FEWEST:
            print(f"**{', '.join(group)}**: {len(results)} runs\n\n{table(results)}\n")


def group_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Images, method, network, and the power of two below the number of steps."""
    recipe, settings = load_recipe(result["recipe"]), result["settings"]
    share = f"{result['data']}, {settings.get('data.subset', 1)} of it{', held out' * bool(result.get('held_out'))}"
    length = f"about {4 ** round(math.log(result['steps'], 4)):,} steps"
    return share, recipe.method, settings.get("backbone", recipe.backbone), length


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each figure that all runs have and that tells them apart, the strongest correlation first."""
    seeds = np.array([result["seed"] for result in results])
    finals = {
        name: _within(seeds, np.array([result["measured"][name]["top1"] for result in results]))
        for name in ("knn", "linear")
        if all(name in result["measured"] for result in results)
    }
    early = [figures(result) for result in results]
    shared = [
        name for name in early[0] if all(name in each for each in early) and len({each[name] for each in early}) > 1
    ]
    rows = []
    for name in shared:
        values = _within(seeds, np.array([each[name] for each in early]))
        found = [correlation(values, final) for final in finals.values()]
        cells = " | ".join(f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" for value, low, high in found)
        rows.append((abs(found[0][0]), f"| {name} | {cells} |"))
    head = [f"| at a tenth of the run | {' | '.join(f'final {name}' for name in finals)} |", "|---" * (len(finals) + 1)]
    return "\n".join([head[0], f"{head[1]}|", *(row for _, row in sorted(rows, reverse=True))])


def _within(seeds: npt.NDArray[np.int64], values: Floats) -> Floats:
    """Values less the mean of their seed."""
    means: Floats = np.array([values[seeds == seed].mean() for seed in seeds])
    return values - means


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The indicators at a tenth of the run (mean of three records), the gain in kNN until then, the kNN at the end."""
    place = AT * result["steps"]
    near = sorted(result["curve"], key=lambda record: abs(record["step"] - place))[:3]
    found = {name: float(np.mean([record[name] for record in near])) for name in INDICATORS if name in near[0]}
    curve = [(each["step"], each["knn_top1"]) for each in result["accuracies"] if "knn_top1" in each]
    if len(curve) > 1 and curve[0][0] == 0:
        steps, knn = (np.array(part, dtype=np.float64) for part in zip(*curve, strict=True))
        found["gain"] = float(np.interp(place, steps, knn) - knn[0])
        found["own kNN, at the end"] = float(knn[-1])
    return found


def correlation(one: Floats, other: Floats) -> tuple[float, float, float]:
    """Spearman's, and its interval by bootstrap over the runs (draws in which all are alike are left out)."""
    rng = np.random.default_rng(0)
    drawn = [_spearman(one[rows], other[rows]) for rows in rng.integers(0, len(one), (DRAWS, len(one)))]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return _spearman(one, other), float(low), float(high)


def _spearman(one: Floats, other: Floats) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


if __name__ == "__main__":
    main()
