"""The plots of the pages about the runs; nothing is drawn where matplotlib is not installed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import Result, step_seconds
from plan import Plan

# What `beyond.md` draws over wall time.
_OVER_TIME = {
    "MobileNetV3-Small 0.5, 5,000 images of Tiny ImageNet-50": (
        *("fifth-v3s-baseline", "fifth-v3s-longer", "fifth-v3s-sslight", "fifth-v3s-koleo-0.03", "fifth-v3s-moco"),
        "fifth-v3s-sslight-6",
    ),
    "MobileNetV2, 25,000 images of Tiny ImageNet-50": (
        *("dino-v2-5-epochs", "dino-v2-5-epochs-koleo-0.03", "dino-v2-10-epochs", "dino-v2-sslight"),
        *("moco-v2-sslight", "dino-v2-koleo-0.03", "moco-v2-koleo-muon"),
    ),
    "mobilenetv2_035, CIFAR-100": (
        *("dino-c100-baseline", "dino-c100-sslight", "moco-c100-sslight", "swav-c100-sslight"),
        *("dino-c100-koleo-0.03", "moco-c100-koleo-muon", "moco-c100-next"),
    ),
}


def draw(plans: Sequence[Plan], kept: dict[str, Result], under_way: dict[str, list[Result]], path: Path) -> bool:
    """A row for each plan that wants it and has curves: kNN and the teacher's entropy; whether there is a plot."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    curves = {key: (r["accuracies"], r["curve"]) for key, r in kept.items()} | {k: (r, r) for k, r in under_way.items()}
    shown = [plan for plan in plans if plan.plot and any(_points(curves, run.key, 0, "knn_top1") for run in plan.runs)]
    if not shown:
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(shown), 2, figsize=(14, 3.6 * len(shown)), squeeze=False, layout="constrained")
    for axes, plan in zip(rows, shown, strict=True):
        names = list(dict.fromkeys(run.name for run in plan.runs if _points(curves, run.key, 0, "knn_top1")))
        kinds = (
            (0, "knn_top1", "kNN of training images, %"),
            (1, "teacher_entropy", "teacher's entropy, share of ln K"),
        )
        for axis, (part, what, title) in zip(axes, kinds, strict=True):
            labeled = set()
            for run in plan.runs:
                if points := _points(curves, run.key, part, what):
                    style = (".-", ".:", "-", ":")[2 * part + (run.key not in kept)]
                    label = run.name if run.name not in labeled else None
                    axis.plot(*zip(*points, strict=True), style, color=f"C{names.index(run.name) % 10}", label=label)
                    labeled.add(run.name)
            axis.set_title(f"{plan.name}: {title}", fontsize=10)
            axis.set_xlabel("step (dotted: under way)")
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=8, frameon=False, loc="center right", bbox_to_anchor=(-0.08, 0.5))
    figure.savefig(path, dpi=70)
    plt.close(figure)
    return True


def draw_over_time(kept: dict[str, Result], path: Path) -> None:
    """The kNN of training images over the minutes of a core, for runs that had one to themselves.

    Dashed lines are of another processor than most of the runs had.
    """
    drawn = {name for names in _OVER_TIME.values() for name in names}
    if not any(result["name"] in drawn and step_seconds(result) for result in kept.values()):
        return
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    usual = Counter(result["processor"] for result in kept.values()).most_common(1)[0][0]
    figure, rows = plt.subplots(len(_OVER_TIME), 1, figsize=(10, 4 * len(_OVER_TIME)), layout="constrained")
    for axis, (title, names) in zip(rows, _OVER_TIME.items(), strict=True):
        for number, name in enumerate(names):
            runs = [result for result in kept.values() if result["name"] == name and step_seconds(result)]
            for result in runs:
                seconds = step_seconds(result)
                assert seconds is not None
                steps, knn = zip(*_points({"": [result["accuracies"]]}, "", 0, "knn_top1"), strict=True)
                label = name if result is runs[0] else None
                style = ".-" if result["processor"] == usual else ".--"
                axis.plot([step * seconds / 60 for step in steps], knn, style, color=f"C{number}", label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("minutes of one core")
        axis.set_ylabel("kNN of training images, %")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _points(curves: dict[str, Any], key: str, part: int, what: str) -> list[tuple[int, float]]:
    records = curves[key][part] if key in curves else []
    return [(record["step"], record[what]) for record in records if what in record]
