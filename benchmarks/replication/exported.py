"""Which network of a finished run to export: the student or its teacher (an average of it), with which statistics?

    python benchmarks/replication/exported.py RUN_FOLDER ... [--data FOLDER]

RUN_FOLDER is a run of the queue whose folder is still there. For the student and for the teacher, each with the batch
norms' statistics of training and with those computed anew over the run's images as the evaluation sees them, it prints
kNN and logistic regression, top-1 in percent, and the difference to what the program exports (the student as trained),
with its 95 % interval, paired over the images. Only runs that are measured on held-out images may help to choose.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

from plan import Run
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from worker import bank_and_queries, image_sets, ranks_of, transform_of

from sslight.backbones import load_backbone
from sslight.data import Source
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features
from sslight.intervals import paired_difference

MEASURES = ("knn", "linear")


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the sets (default: where the run had them)")
    given = parser.parse_args()
    for folder in given.runs:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        run = Run(**content["run"])
        data, where = given.data or Path(content["data"]), ", held-out images" if run.held_out else ""
        print(f"**{run.key}**{where}\n\n{table(run, folder, data)}\n", flush=True)


def table(run: Run, folder: Path, data: Path) -> str:
    """A row for each network."""
    rows = ["| network, statistics | kNN | linear |", "|---|---|---|"]
    as_exported: dict[str, list[bool]] = {}
    for network in ("student", "teacher"):
        for statistics in ("of training", "anew"):
            right = hits(run, folder, data, network, statistics == "anew")
            cells = []
            for name in MEASURES:
                cell = f"{100 * fmean(right[name]):.1f}"
                if name in as_exported:
                    difference = paired_difference(right[name], as_exported[name])
                    cell += f" ({difference.value:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}])"
                cells.append(cell)
            as_exported = as_exported or right
            rows.append(f"| {network}, {statistics} | {' | '.join(cells)} |")
    return "\n".join(rows)


def hits(run: Run, folder: Path, data: Path, network: str, anew: bool) -> dict[str, list[bool]]:
    """For each measurement, which images one network gets right."""
    train, images, val = image_sets(run, data / run.data, folder)
    bank, queries = bank_and_queries(train, images, val, run.measure["knn"].get("data.subset"))
    file = folder / "run" / "checkpoints" / "last.pt"
    module, transform = load_backbone(file, network=network), transform_of(file, run.measure["knn"])
    if anew:
        compute_statistics(module, bank, transform)
    known, asked = (extract_features(module, source, transform, Extraction())[0] for source in (bank, queries))
    return {name: (ranks_of(run, name, bank, queries, known, asked) == 0).tolist() for name in MEASURES}


def compute_statistics(module: nn.Module, source: Source, transform: EvalTransform) -> None:
    """Give batch norms the means and variances of these images, each batch of 256 with equal weight."""
    for norm in (part for part in module.modules() if isinstance(part, _BatchNorm)):
        norm.reset_running_stats()
        norm.momentum = None
    hook = module.register_forward_pre_hook(lambda network, _: network.train() and None)
    extract_features(module, source, transform, Extraction())
    hook.remove()


if __name__ == "__main__":
    main()
