"""The published values beside which `cifar10.py` puts its own, and its page `CIFAR10.md`."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

_LIGHTLY = "https://github.com/lightly-ai/lightly/blob/master/docs/source/getting_started"
_SOLO = "https://github.com/vturrisi/solo-learn"
_SOURCES = {
    "LightlySSL": f"[table]({_LIGHTLY}/benchmarks.rst), [settings]({_LIGHTLY}/benchmarks/cifar10_benchmark.py)",
    "solo-learn": f"[table]({_SOLO}#cifar-10), [settings]({_SOLO}/tree/main/scripts/pretrain/cifar)",
}
PUBLISHED_LENGTH = (50_000, 200, 128)
"""Images, epochs and batch of the published run whose settings both sides take."""

PUBLISHED = [
    # library, method, what, epochs, batch, accuracy in %, minutes, hardware
    ("LightlySSL", "dino", "kNN, k = 200", 200, 128, 84.0, 120.3, "1 RTX A6000"),
    ("LightlySSL", "swav", "kNN, k = 200", 200, 128, 81.2, 99.6, "1 RTX A6000"),
    ("LightlySSL", "moco", "kNN, k = 200", 200, 128, 83.8, 128.8, "1 RTX A6000"),
    ("LightlySSL", "dino", "kNN, k = 200", 200, 512, 81.3, 108.6, "1 RTX A6000"),
    ("LightlySSL", "swav", "kNN, k = 200", 200, 512, 84.2, 88.7, "1 RTX A6000"),
    ("LightlySSL", "moco", "kNN, k = 200", 200, 512, 84.7, 112.2, "1 RTX A6000"),
    ("LightlySSL", "dino", "kNN, k = 200", 800, 512, 84.8, 405.2, "1 RTX A6000"),
    ("LightlySSL", "swav", "kNN, k = 200", 800, 512, 88.4, 330.5, "1 RTX A6000"),
    ("LightlySSL", "moco", "kNN, k = 200", 800, 512, 89.9, 417.8, "1 RTX A6000"),
    ("solo-learn", "dino", "linear", 1000, 256, 89.52, None, "not stated"),
    ("solo-learn", "swav", "linear", 1000, 256, 89.17, None, "not stated"),
    ("solo-learn", "moco", "linear", 1000, 256, 92.94, None, "not stated"),
]

NAMES = {"untrained": "untrained", "dino": "DINO", "swav": "SwAV", "moco": "MoCo-v2"}

DIFFERENCES = """\
The same on both sides: the network (ResNet-18, 3×3 stem of stride 1, no max-pooling) with the same initial weights for
a seed, the images, two 32 px views of each, the batch, the optimiser's momentum, the peak rate and its cosine by step
down to 0, the widths of the heads, the temperatures, the numbers of prototypes and of keys, and the measurement: the
whole 32 px image, the features of the network that was trained, the last epoch, votes of exp(cosine / 0.1).

Where this differs from what LightlySSL published: their accuracy is the best of all epochs on the test set, from all
training images; their network starts with PyTorch's default weights (here: He normal, as torchvision's); their rate
falls by epoch, not by step; their loop is PyTorch Lightning's (here: a plain one around their parts).

Where the sides differ:

- Crops: sslight resizes with antialiased bicubic filtering; lightly bicubic for DINO, bilinear for SwAV and MoCo.
  Scales, flips, jitter, grey and solarisation have the same strengths and probabilities, but are drawn by other
  generators: the views are alike, not equal.
- Weight decay: sslight spares biases and norms; lightly's benchmark decays them too.
- Batch norm in training: sslight passes the views that a network sees through it together, lightly one by one.
- DINO: sslight's teacher momentum rises from 0.99 to 1, lightly's stays at 0.99. sslight's teacher moves after the step
  and its head starts as a copy of the student's; lightly's moves before it and its head starts with other weights.
  Hidden layers of the head start normal with standard deviation 0.02 (sslight) or as PyTorch's default (lightly).
- SwAV: AdamW, its decay apart from the gradient (sslight), or Adam (lightly); the decay is 1e-6. lightly's prototypes
  have a bias. Layers of the head start normal with standard deviation 0.01 (sslight) or as PyTorch's default (lightly).
- MoCo: lightly's loss has both directions, each view once as query and once as key: as many view pixels, but twice the
  passes, and twice as many keys enter the queue in a step. sslight takes one direction. lightly shuffles the keys and
  splits batch norm into 8 parts; sslight, on one device, does neither. Layers of the head start normal with standard
  deviation 0.02 (sslight) or as PyTorch's default (lightly).
"""


def to_markdown(results: Sequence[dict[str, Any]]) -> str:
    """The page: published values, what was measured here, and every known difference."""
    setup, bank, queries = results[0]["setup"], results[0]["bank"], results[0]["queries"]
    length = (bank, setup["epochs"], setup["batch_size"])
    share = 100 * bank * setup["epochs"] / (PUBLISHED_LENGTH[0] * PUBLISHED_LENGTH[1])
    scale = "the published length" if length == PUBLISHED_LENGTH else f"{share:.2g} % of the views of 200 epochs"
    shares = [accuracy / 100 for result in results for accuracy in result["knn"].values()]
    error = max(100 * (p * (1 - p) / queries) ** 0.5 for p in shares)
    return "\n".join(
        [
            "# CIFAR-10: an outside yardstick\n",
            "## Measured here\n",
            f"{bank:,} training images × {setup['epochs']} epochs, batch {setup['batch_size']}: {scale}. kNN top-1 in "
            f"percent of {queries:,} validation images against the training images. Means over seeds, with the "
            f"smallest and the largest; the last column is sslight less lightly with the same seed. Other validation "
            f"images alone would move an accuracy by about {error:.1f} (one standard error). The images are "
            f"{results[0]['files']} files; the published values are from .png.\n",
            *_measured(results),
            "",
            "Seconds are those of training alone, views and checkpoints included; processor seconds are those of "
            "training with its start and its loader processes, whatever else the machine did. "
            f"Hardware: {_all(results, lambda result: result['hardware'])}. "
            f"Versions: {_all(results, lambda result: _versions(result))}. Loader processes: {setup['workers']}.\n",
            "## Published by others, not measured here\n",
            "To be compared with the table above only at the same length; solo-learn's are of a linear classifier.\n",
            "| library | method | measure | epochs | batch | top-1 (%) | minutes | hardware | source |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_published(*row) for row in PUBLISHED),
            "",
            "## What is equal and what is not\n",
            DIFFERENCES,
        ]
    )


def _measured(results: Sequence[dict[str, Any]]) -> list[str]:
    ks = list(results[0]["knn"])
    of = {(r["method"], r["side"], r["seed"]): r for r in results}
    heads = [
        "method",
        "side",
        "seeds",
        *(f"k = {k}" for k in ks),
        "seconds",
        "images/s",
        "processor s",
        f"difference, k = {ks[0]}",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in NAMES:
        for side in dict.fromkeys(r["side"] for r in results if r["method"] == method):
            runs = [r for r in results if (r["method"], r["side"]) == (method, side)]
            accuracies = [_spread([r["knn"][k] for r in runs]) for k in ks]
            pairs = [(r, of.get((method, "lightly", r["seed"]))) for r in runs if side == "sslight"]
            gaps = [ours["knn"][ks[0]] - theirs["knn"][ks[0]] for ours, theirs in pairs if theirs is not None]
            took = [""] * 3
            if side:
                numbers = (("seconds", 0), ("images_per_second", 1), ("processor_seconds", 0))
                took = [_spread([r[name] for r in runs], digits) for name, digits in numbers]
            row = [NAMES[method], side or "either", str(len(runs)), *accuracies, *took]
            lines.append(f"| {' | '.join([*row, _spread(gaps, sign='+') if gaps else ''])} |")
    return lines


def _spread(values: Sequence[float], digits: int = 1, sign: str = "") -> str:
    shown = [f"{value:{sign}.{digits}f}" for value in (fmean(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _published(
    library: str,
    method: str,
    what: str,
    epochs: int,
    batch: int,
    accuracy: float,
    minutes: float | None,
    hardware: str,
) -> str:
    name = "MoCo-v2+" if (library, method) == ("solo-learn", "moco") else NAMES[method]
    took = "not stated" if minutes is None else f"{minutes:g}"
    values = [library, name, what, str(epochs), str(batch), f"{accuracy:g}", took, hardware, _SOURCES[library]]
    return f"| {' | '.join(values)} |"


def _all(results: Sequence[dict[str, Any]], fact: Callable[[dict[str, Any]], str]) -> str:
    return "; ".join(dict.fromkeys(fact(result) for result in results))


def _versions(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in result["versions"].items())
