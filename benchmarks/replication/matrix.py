"""What is compared with what: the cells of the matrix, their settings, and how many epochs and seeds fit a budget."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslight.config import PretrainSettings, load_recipe, read_recipe

BASELINE, SSLIGHT = "baseline", "sslight"
LONGER, MORE_VIEWS = "baseline, longer", "baseline, more views"
SINGLE = tuple(read_recipe("dino_cnn_sslight_64").changes)
"""The four settings of SSLight, by their dotted names; each is also changed alone."""

ALL_VARIANTS = (BASELINE, *SINGLE, SSLIGHT, LONGER, MORE_VIEWS)
BOTH = (BASELINE, SSLIGHT, LONGER)
FACTORS = (0.5, 1.0, 2.0)
"""Learning rates that the selection tries, as multiples of the recipe's."""

SELECTION_SEED = 1000
_SELECTION_SHARE = 3  # a run of the selection has a third of the epochs
_MOST_EPOCHS, _MOST_SEEDS = 100, 5


@dataclass(frozen=True)
class Cell:
    """One training run of the matrix."""

    method: str
    backbone: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """As the name of a folder."""
        variant = self.variant.replace(", ", "-").replace(" ", "-")
        return f"{self.method}-{self.backbone}-{variant}-{self.seed}"


@dataclass(frozen=True)
class Matrix:
    """The methods with the variants of each, and the backbones."""

    methods: Mapping[str, Sequence[str]]
    backbones: Sequence[str]

    def cells(self, seeds: int) -> Iterator[Cell]:
        """All runs, whole seeds one after the other, so that one that is stopped early has whole seeds."""
        for seed in range(seeds):
            for backbone in self.backbones:
                for method, variants in self.methods.items():
                    for variant in variants:
                        yield Cell(method, backbone, variant, seed)

    def selection(self) -> Iterator[tuple[Cell, float]]:
        """The runs that choose a learning rate: for the baseline and for SSLight, each with its factors."""
        for backbone in self.backbones:
            for method in self.methods:
                for variant in (BASELINE, SSLIGHT):
                    for factor in FACTORS:
                        yield Cell(method, backbone, variant, SELECTION_SEED), factor


MATRICES = {
    "gpu": Matrix(dict.fromkeys(("dino", "swav", "moco"), ALL_VARIANTS), ("mobilenet_v2", "resnet18")),
    "cpu": Matrix({"dino": ALL_VARIANTS[:-1], "swav": BOTH, "moco": BOTH}, ("regnetx_002",)),
}


def recipe_of(cell: Cell) -> str:
    """Name of the recipe that a cell starts from."""
    return f"{cell.method}_cnn_{SSLIGHT if cell.variant == SSLIGHT else BASELINE}_64"


def view_pixels(settings: PretrainSettings) -> int:
    """Pixels of all views of an image."""
    views = settings.views
    return views.num_global * views.global_size**2 + views.num_local * views.local_size**2


def cell_settings(cell: Cell, *, epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    """What the variant of a cell changes in its recipe, its length included.

    The two matched baselines get the view pixels of SSLight's run: by more steps (to the nearest step), or by the
    smallest number of local views that gives at least as many.
    """
    baseline, sslight = (load_recipe(f"{cell.method}_cnn_{name}_64") for name in (BASELINE, SSLIGHT))
    wanted = view_pixels(sslight)
    steps = epochs * steps_per_epoch
    match cell.variant:
        case "baseline, longer":
            return {"steps": round(steps * wanted / view_pixels(baseline))}
        case "baseline, more views":
            more = math.ceil((wanted - view_pixels(baseline)) / baseline.views.local_size**2)
            return {"steps": steps, "views.num_local": baseline.views.num_local + more}
        case variant if variant in SINGLE:
            return {"steps": steps, variant: read_recipe(f"{cell.method}_cnn_sslight_64").changes[variant]}
        case _:
            return {"steps": steps}


@dataclass(frozen=True)
class Cost:
    """What a run costs, as measured: a fixed part in seconds (start, evaluation) and images a second."""

    fixed: float
    images_per_second: float


@dataclass(frozen=True)
class Length:
    """How long the runs are, and how many."""

    epochs: int
    selection_epochs: int
    seeds: int
    seconds: float


def fit(
    matrix: Matrix, costs: Mapping[tuple[str, str], Cost], *, images: int, seeds: int, seconds: float, jobs: int
) -> Length:
    """The most epochs (up to 100), then seeds (up to 5), with which the matrix ends in time.

    Args:
        costs: By method and backbone.
        images: Training images of an epoch.
        seeds: At least so many.
        seconds: What is left of the budget.
        jobs: Runs at the same time.

    Raises:
        ValueError: one epoch does not fit; the message has the time that does.
    """

    def length(epochs: int, seeds: int) -> Length:
        selection = max(1, epochs // _SELECTION_SHARE)
        runs = [(cell, epochs) for cell in matrix.cells(seeds)]
        runs += [(cell, selection) for cell, _ in matrix.selection()]
        total = 0.0
        for cell, passes in runs:
            cost = costs[cell.method, cell.backbone]
            total += cost.fixed + passes * images / cost.images_per_second
        return Length(epochs, selection, seeds, total / jobs)

    shortest = length(1, seeds)
    if shortest.seconds > seconds:
        raise ValueError(
            f"one epoch of every run takes about {shortest.seconds / 60:.0f} minutes, and {max(0, seconds) / 60:.0f} "
            f"are left of --minutes: give more, or fewer --methods or --backbones, or a smaller --share."
        )
    epochs = max(n for n in range(1, _MOST_EPOCHS + 1) if length(n, seeds).seconds <= seconds)
    seeds = max(n for n in range(seeds, max(seeds, _MOST_SEEDS) + 1) if length(epochs, n).seconds <= seconds)
    return length(epochs, seeds)
