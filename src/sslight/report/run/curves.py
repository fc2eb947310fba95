"""The curves of runs: which figures belong together, and what they mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sslight.report.line_chart import Figure, Line, Reference, line_chart
from sslight.report.page import Html, element
from sslight.report.run.files import Run
from sslight.report.run.summary import METHOD_NAMES

PROBES = {
    "knn_top1": Figure("kNN top-1 [%]", "validation images against training images", smooth=False),
    "linear_top1": Figure("linear top-1 [%]", "logistic regression on the features", smooth=False),
    "probe_top1": Figure("online probe top-1 [%]", "of the training batch"),
    "holdout_top1": Figure("held-out top-1 [%]", "training images that are held out", smooth=False),
    "holdout_map": Figure("held-out mean average precision [%]", "training images that are held out", smooth=False),
    "probe_loss": Figure("online probe loss", "cross-entropy [nats]"),
}
_LOSSES = {
    "loss": Figure("loss"),
    "global_loss": Figure("loss, global–global pairs"),
    "local_loss": Figure("loss, local–global pairs"),
    "koleo_loss": Figure("KoLeo term", "before its weight; lower: features spread further"),
}
INDICATORS = {
    "teacher_entropy": Figure("teacher entropy", "share of ln K; near 1 uniform targets, near 0 one-hot", linear=True),
    "target_spread": Figure(
        "target spread", "entropy of the mean target, share of ln K; near 0 all the same", linear=True
    ),
    "divergence": Figure("divergence", "student from teacher [nats]"),
    "prototypes_used": Figure("prototypes used", "share of those that a batch could use", percent=True),
    "assignment_entropy": Figure("assignment entropy", "share of ln P; near 1 assignments are uniform", linear=True),
    "key_similarity": Figure("key similarity", "cosine of query and its key"),
    "contrast_top1": Figure("own key nearest [%]", "of the queries"),
    "feature_spread": Figure("feature spread", "0: all images look alike, 1: spread evenly"),
    "effective_rank": Figure("effective rank", "number of directions used by the features of the latest images"),
}
_OPTIMIZATION = {
    "train_top1": Figure("right answers [%]", "of the training batch"),
    "grad_norm": Figure("gradient norm", "of all weights together"),
    "lr": Figure("learning rate", smooth=False),
}
_SCHEDULED = {
    "weight_decay": Figure("weight decay", smooth=False),
    "momentum": Figure("teacher or key momentum", smooth=False),
    "teacher_temp": Figure("teacher temperature", smooth=False),
}
SPEED = {
    "images_per_second": Figure("throughput [images/s]"),
    "data_wait_share": Figure("waiting for data", "share of the time", percent=True),
}
_KNOWN = {"knn_images", *PROBES, *_LOSSES, *INDICATORS, *_OPTIMIZATION, *_SCHEDULED, *SPEED}

_CHANCE = {
    "dino": ("ln K", "dino.head_output_dim", 0),
    "swav": ("ln P", "swav.num_prototypes", 0),
    "moco": ("ln(1 + Q)", "moco.queue_size", 1),
}
"""The loss of a network that tells nothing apart: its name, and the logarithm of which setting and what more it is."""


def run_color(position: int) -> str:
    """The variable of the page's style with the color of a run."""
    return f"--series-{(position + 1) % 6}"


class Curves:
    """Charts of the figures of all runs over a common axis: steps, or images where batches differ in size."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        sizes = [run.settings.get("batch_size") for run in runs]
        self._per_step = [1] * len(runs)
        self._x_label = "steps"
        if len(set(map(str, sizes))) > 1 and all(isinstance(size, int) for size in sizes):
            self._per_step = [int(str(size)) for size in sizes]
            self._x_label = "images seen"
        self.x_end = max(1, *(self.x_of(position, run.step) for position, run in enumerate(runs)))

    def x_of(self, position: int, step: int) -> int:
        """Place of a run's step on the axis."""
        return step * self._per_step[position]

    def charts(self, figures: Mapping[str, Figure]) -> list[Html]:
        """Of those figures that a run has."""
        everything = range(len(self._runs))
        return [chart for name, figure in figures.items() for chart in self._chart(name, figure, everything)]

    def training(self) -> list[Html]:
        """Loss, gradient and what was scheduled, and figures that this version does not know.

        Losses of different methods, or with another share of KoLeo, are not comparable, and have charts of their own.
        """
        charts = []
        methods = list(dict.fromkeys(run.settings.get("method") for run in self._runs))
        for method in methods:
            named = METHOD_NAMES.get(str(method), method or "training with labels")
            of = f" of {named}" if len(methods) > 1 else ""
            runs = [position for position, run in enumerate(self._runs) if run.settings.get("method") == method]
            unit = "[nats]" if method in METHOD_NAMES else ""
            for name, figure in _LOSSES.items():
                shown = replace(figure, title=figure.title + of, detail=f"{unit} {figure.detail}".strip())
                of_weight: dict[Any, list[int]] = {}  # a loss with another share of KoLeo is another loss
                for position in runs:
                    weight = self._runs[position].settings.get(f"{method}.koleo_weight") or 0
                    of_weight.setdefault(weight if name == "loss" else 0, []).append(position)
                for weight, alike in of_weight.items():
                    koleo = f" with KoLeo · {weight}" if weight else ""
                    charts += self._chart(name, replace(shown, title=shown.title + koleo), alike)
        varied = {name: figure for name, figure in _SCHEDULED.items() if any(_varies(run, name) for run in self._runs)}
        others = {name for run in self._runs for name in run.series} - _KNOWN
        return charts + self.charts(_OPTIMIZATION | varied | {name: Figure(name) for name in sorted(others)})

    def _chart(self, name: str, figure: Figure, positions: Sequence[int]) -> list[Html]:
        lines, references = [], []
        for position in positions:
            run = self._runs[position]
            points = [(float(self.x_of(position, step)), value) for step, value in run.series.get(name, [])]
            if any(not math.isnan(value) for _, value in points):
                lines.append(Line(points, run_color(position), run.name if len(self._runs) > 1 else ""))
            references += self._references(name, position)
        if not lines:
            return []
        references = list(dict.fromkeys(references))
        return [element("div", line_chart(lines, figure, self._x_label, self.x_end, references))]

    def _references(self, name: str, position: int) -> list[Reference]:
        """Chance for a loss, the untrained network for an accuracy, the range of a healthy run for an indicator."""
        run = self._runs[position]
        if name in _LOSSES and (known := _CHANCE.get(str(run.settings.get("method")))):
            what, setting, more = known
            number = run.settings.get(setting)
            weight = run.settings.get(f"{run.settings['method']}.koleo_weight")
            of_koleo = name == "koleo_loss" or (name == "loss" and weight)
            if not isinstance(number, int) or number < 1 or of_koleo:
                return []
            chance = math.log(number + more)
            return [Reference(chance, name=f"chance: {what} = {chance:.2f}", color="--soft")]
        first = run.series.get(name, [(1, 0.0)])[0]
        if name in PROBES and first[0] == 0 and not math.isnan(first[1]):
            alike = sum(other.series.get(name, [])[:1] == [first] for other in self._runs)
            said = f"{run.beginning}: {first[1]:.1f}" if alike == len(self._runs) else ""
            color = run_color(position) if alike == 1 else "--soft"  # one line and band for equal beginnings
            return [Reference(first[1], run.intervals.get(name), said, color)]
        return [Reference(band=run.healthy[name])] if name in run.healthy else []


def _varies(run: Run, name: str) -> bool:
    return len({value for _, value in run.series.get(name, [])}) > 1
