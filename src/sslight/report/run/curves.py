"""The curves of runs: which figures belong together, and what they mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sslight.report.line_chart import Line, Reference, line_chart
from sslight.report.page import Html, element
from sslight.report.run.files import Run, Series
from sslight.report.run.summary import METHOD_NAMES

_SCHEDULED = ("weight_decay", "momentum", "teacher_temp")


@dataclass(frozen=True)
class _Figure:
    """A figure of ``metrics.jsonl``: title, meaning, whether neighbouring points are averaged, whether a share."""

    title: str
    detail: str = ""
    smooth: bool = True
    percent: bool = False


_PROBES = {
    "knn_top1": _Figure("kNN top-1 [%]", "validation images against training images", smooth=False),
    "linear_top1": _Figure("linear top-1 [%]", "logistic regression on the features", smooth=False),
    "probe_top1": _Figure("online probe top-1 [%]", "of the training batch"),
    "probe_loss": _Figure("online probe loss", "cross-entropy [nats]"),
}
_LOSSES = {
    "loss": _Figure("loss"),
    "global_loss": _Figure("loss, global–global pairs"),
    "local_loss": _Figure("loss, local–global pairs"),
}
_INDICATORS = {
    "teacher_entropy": _Figure("teacher entropy", "share of ln K; near 1 targets are uniform, near 0 sure"),
    "target_spread": _Figure("target spread", "entropy of the mean target, share of ln K; near 0 all alike"),
    "divergence": _Figure("divergence", "student from teacher [nats]"),
    "prototypes_used": _Figure("prototypes used", "of those that a batch could use", percent=True),
    "assignment_entropy": _Figure("assignment entropy", "share of ln P; near 1 assignments are uniform"),
    "key_similarity": _Figure("key similarity", "cosine of query and its key"),
    "contrast_top1": _Figure("own key nearest [%]", "of the queries"),
    "feature_spread": _Figure("feature spread", "0: all images look alike, 1: spread evenly"),
    "effective_rank": _Figure("effective rank", "directions that the features of a batch use"),
}
_OPTIMIZATION = {
    "grad_norm": _Figure("gradient norm", "of all weights together"),
    "lr": _Figure("learning rate", smooth=False),
    "weight_decay": _Figure("weight decay", smooth=False),
    "momentum": _Figure("teacher or key momentum", smooth=False),
    "teacher_temp": _Figure("teacher temperature", smooth=False),
}
_SPEED = {
    "images_per_second": _Figure("throughput [images/s]"),
    "data_wait_share": _Figure("waiting for data", "share of the time", percent=True),
}
_KNOWN = {*_PROBES, *_LOSSES, *_INDICATORS, *_OPTIMIZATION, *_SPEED}


_CHANCE = {
    "dino": ("ln K", "dino.head_output_dim", 0),
    "swav": ("ln P", "swav.num_prototypes", 0),
    "moco": ("ln(1 + Q)", "moco.queue_size", 1),
}
"""The loss of a network that tells nothing apart: its name, and the logarithm of which setting and what more it is."""


def run_color(position: int) -> str:
    """The variable of the page's style with the colour of a run."""
    return f"--series-{(position + 1) % 6}"


class Curves:
    """Charts of the figures of all runs over a common axis: steps, or images where batches differ in size."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        sizes = [run.settings.get("batch_size") for run in runs]
        self._per_step = [1] * len(runs)
        self.x_label = "steps"
        if len(set(map(str, sizes))) > 1 and all(isinstance(size, int) for size in sizes):
            self._per_step = [int(str(size)) for size in sizes]
            self.x_label = "images seen"
        ends = [run.step * per_step for run, per_step in zip(runs, self._per_step, strict=True)]
        self.x_end = max([1, *ends])

    def x_of(self, position: int, step: int) -> int:
        """Place of a run's step on the axis."""
        return step * self._per_step[position]

    def probes(self) -> list[Html]:
        """Accuracies with labels over the run."""
        return self._charts(_PROBES)

    def indicators(self) -> list[Html]:
        """What tells without labels whether the network learns."""
        return self._charts(_INDICATORS)

    def training(self) -> list[Html]:
        """Loss, gradient and what was scheduled, and figures that this version does not know."""
        constant = {name for name in _SCHEDULED if not any(_varies(run.series.get(name, [])) for run in self._runs)}
        scheduled = {name: figure for name, figure in _OPTIMIZATION.items() if name not in constant}
        others = {name for run in self._runs for name in run.series} - _KNOWN
        return [
            *self._losses(),
            *self._charts(scheduled),
            *self._charts({name: _Figure(name) for name in sorted(others)}),
        ]

    def speed(self) -> list[Html]:
        """Throughput and waiting for data."""
        return self._charts(_SPEED)

    def _losses(self) -> list[Html]:
        """One chart for a run; for several, one for each method, since their losses are not comparable."""
        methods = list(dict.fromkeys(run.settings.get("method") for run in self._runs))
        charts = []
        for method in methods:
            of = f" of {METHOD_NAMES.get(str(method), method)}" if len(methods) > 1 else ""
            runs = [position for position, run in enumerate(self._runs) if run.settings.get("method") == method]
            for name, figure in _LOSSES.items():
                unit = "[nats]" if method in METHOD_NAMES else ""
                charts += self._chart(name, _Figure(figure.title + of, unit), runs)
        return charts

    def _charts(self, figures: dict[str, _Figure]) -> list[Html]:
        everything = range(len(self._runs))
        return [chart for name, figure in figures.items() for chart in self._chart(name, figure, everything)]

    def _chart(self, name: str, figure: _Figure, positions: Sequence[int]) -> list[Html]:
        lines = []
        for position in positions:
            series = self._runs[position].series.get(name, [])
            if any(not math.isnan(value) for _, value in series):
                points = [(float(self.x_of(position, step)), value) for step, value in series]
                lines.append(
                    Line(points, run_color(position), self._runs[position].name if len(self._runs) > 1 else "")
                )
        if not lines:
            return []
        chart = line_chart(
            lines,
            title=figure.title,
            detail=figure.detail,
            x_label=self.x_label,
            x_end=self.x_end,
            smooth=figure.smooth,
            percent=figure.percent,
            references=list(dict.fromkeys(r for position in positions for r in self._references(name, position))),
        )
        return [element("div", chart)]

    def _references(self, name: str, position: int) -> list[Reference]:
        """Chance for a loss, the untrained network for an accuracy, the range of a healthy run for an indicator."""
        run = self._runs[position]
        if name in _LOSSES and (known := _CHANCE.get(str(run.settings.get("method")))):
            what, setting, more = known
            number = run.settings.get(setting)
            if not isinstance(number, int) or number < 1:
                return []
            chance = math.log(number + more)
            return [Reference(chance, name=f"chance: {what} = {chance:.2f}", color="--soft")]
        first = run.series.get(name, [(1, 0.0)])[0]
        if name in _PROBES and first[0] == 0 and not math.isnan(first[1]):
            said = f"untrained: {first[1]:.1f}" if len(self._runs) == 1 else ""
            return [Reference(first[1], run.intervals.get(name), said, run_color(position))]
        return [Reference(band=run.healthy[name])] if name in run.healthy else []


def _varies(series: Series) -> bool:
    return len({value for _, value in series}) > 1
