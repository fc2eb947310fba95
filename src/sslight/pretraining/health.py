"""Is the network learning? Indicators that need no labels, and what they mean in words.

The thresholds come from runs of a few hundred steps, some of which were made to go wrong (docs/health.md has the
figures); tests/pretraining/test_verdicts.py provokes the same troubles again.
"""

import math
from collections import deque
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslight.config import PretrainSettings
from sslight.train.task import EARLY, Verdict

_MAX_ROWS = 256  # keeps the eigenvalue problem within milliseconds


class RecentFeatures:
    """The features of the latest images, at most 256, from as many steps as that takes: a batch of 16 says little.

    Each batch is centered by itself: a network that moves from step to step would seem to spread its images.
    """

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Remember a batch of features ``[B, D]``, B at least 2."""
        rows = features[:_MAX_ROWS].detach().float()
        self._directions = F.normalize(rows, dim=1)
        self.batches.append(rows - rows.mean(0))
        while sum(map(len, self.batches)) > _MAX_ROWS:
            del self.batches[0]

    @torch.no_grad()
    def health(self) -> dict[str, Tensor]:
        """Spread and effective rank, as scalars on their device.

        * ``feature_spread``: root mean variance of the L2-normalized features over the latest batch, between 0 (all
          images look alike: collapse) and 1 (directions spread evenly); after Chen & He, CVPR 2021, figure 2.
        * ``effective_rank``: exponential of the entropy of the singular values of all rows, between 1 and
          :func:`rank_limit`; Roy & Vetterli, EUSIPCO 2007.
        """
        device = self._directions.device
        rows = torch.cat([batch.to(device) for batch in self.batches]).double()  # or rounding is a rank of its own
        spread = self._directions.var(0, unbiased=False).sum().sqrt()
        rank = rows.new_full((), torch.nan)
        if rows.isfinite().all():  # the host waits here; eigenvalues of another matrix would be an error
            singular = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0).sqrt()
            share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
            rank = torch.special.entr(share).sum().exp()
        return {"feature_spread": spread, "effective_rank": rank.float()}


def rank_limit(rows: int) -> int:
    """The largest effective rank of :class:`RecentFeatures` with so many images in a batch."""
    rows = min(rows, _MAX_ROWS)
    return _MAX_ROWS // rows * (rows - 1)


HEALTHY = Verdict("healthy")


def health_line(scalars: dict[str, float], rows: int, verdict: Verdict) -> str:
    """The verdict and the indicators, for the end of an epoch; ``rows`` are the images of a forward pass."""
    parts = [words.format(factor * scalars[name]) for name, (words, factor) in _IN_WORDS.items() if name in scalars]
    return " · ".join([f"health: {verdict.state}", *parts]) + f" of {rank_limit(rows)}"


_IN_WORDS = {
    "teacher_entropy": ("teacher entropy {:.3f} of ln K", 1),
    "prototypes_used": ("prototypes used {:.0f} %", 100),
    "key_similarity": ("key similarity {:.2f}", 1),
    "contrast_top1": ("own key nearest {:.0f} %", 1),
    "feature_spread": ("feature spread {:.2f}", 1),
    "effective_rank": ("effective rank {:.0f}", 1),  # the last: what it is of follows
}
_REMEMBERED = 5  # records: one batch says little
_STEPS_BEFORE_A_VERDICT = 40
_SHARPNESS = {"dino": ("teacher_entropy", "dino.teacher_temp"), "swav": ("assignment_entropy", "swav.epsilon")}
_HIGHEST_RATE = {"adamw": 0.003, "sgd": 0.5, "lars": 10.0, "muon": 10.0}  # peak rates above these are rarely meant


_FLAT_MEASUREMENTS = 3  # that are needed to call an accuracy flat
_LEAST_TOLD = 0.12  # of what DINO's targets could tell of their images
_LEAST_SPREAD = 0.2  # of their mean, where different targets for all images are 1: 0.7 and more in runs that learned


def healthy_ranges(settings: PretrainSettings, *, rows: int) -> dict[str, tuple[float, float]]:
    """Lowest and highest figures of a run that learns; beyond, :class:`HealthWatch` finds fault, whatever the others.

    ``rows`` are the images that a process has in one forward pass.
    """
    most, classes = min(rows, _MAX_ROWS) - 1, settings.dino.head_output_dim
    most_told = math.log(min(classes, settings.views.num_global * rows)) / math.log(classes)
    told, spread = _LEAST_TOLD * most_told, _LEAST_SPREAD * most_told
    return {
        "feature_spread": (0.05, math.inf),
        "effective_rank": (min(0.3 * most, 15), math.inf),
        "data_wait_share": (-math.inf, 0.3),
        "teacher_entropy": (-math.inf, 1 - told),
        "target_spread": (spread, math.inf),
        "assignment_entropy": (-math.inf, 0.97),
    }


class HealthWatch:
    """Judges a run by the figures of its latest records, and by its accuracies where they are measured.

    Args:
        settings: Of the run; sizes, and the values that advice names.
        rows: Images that a process has in one forward pass.
        measured: Images of which the accuracies are.
    """

    def __init__(self, settings: PretrainSettings, *, rows: int, measured: int = 1000) -> None:
        self._settings, self._rows, self._images = settings, rows, measured
        self._healthy = healthy_ranges(settings, rows=rows)
        self._records: deque[dict[str, float]] = deque(maxlen=_REMEMBERED)
        self._accuracies: list[dict[str, float]] = []
        self.features = RecentFeatures()

    def state_dict(self) -> dict[str, Any]:
        """The latest records and features and all accuracies, so that a resumed run is judged as it was."""
        features = [batch.cpu() for batch in self.features.batches]
        return {"records": list(self._records), "accuracies": list(self._accuracies), "features": features}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._records = deque(state["records"], maxlen=_REMEMBERED)
        self._accuracies, self.features.batches = list(state["accuracies"]), list(state["features"])

    def judge(self, step: int, metrics: dict[str, float]) -> Verdict:
        """The verdict after ``step`` steps, with the figures of a record added, or the accuracies measured there."""
        if "loss" in metrics:
            self._records.append(metrics)
        if "knn_top1" in metrics:
            name, _ = _SHARPNESS.get(self._settings.method, ("", ""))
            entropy = self._records[-1].get(name, 0.0) if self._records else 0.0
            self._accuracies.append({"step": step, "knn": metrics["knn_top1"], "entropy": entropy})
        if step < _STEPS_BEFORE_A_VERDICT or len(self._records) < _REMEMBERED:
            return EARLY
        names = set.intersection(*(set(record) for record in self._records))
        means = {name: sum(record[name] for record in self._records) / _REMEMBERED for name in names}
        verdicts = [self._features(means), self._accuracy()]
        match self._settings.method:
            case "dino":
                verdicts.append(self._dino(means))
            case "swav":
                verdicts.append(self._swav(means, step))
            case "moco":
                verdicts.append(self._moco(means))
        if means["data_wait_share"] > self._healthy["data_wait_share"][1]:
            found = f"{means['data_wait_share']:.0%} of the time is spent waiting for data"
            more = (
                "more loader processes (workers), sslight data pack, or fewer views; measure with sslight bench loader"
            )
            verdicts.append(Verdict("starved", found, more))
        worst = ("collapsed", "watch", "starved", "healthy")
        return min(reversed(verdicts), key=lambda verdict: worst.index(verdict.state))

    def stopped_paying(self, total_steps: int) -> str | None:
        """A sentence if the accuracy has not risen in a third of the steps done, which are more than half of all."""
        trained = self._accuracies[1:]
        if not trained or not total_steps / 2 < trained[-1]["step"] < total_steps:
            return None
        best = max(each["knn"] for each in trained)
        since = next(each for each in trained if each["knn"] >= best - self._error(best))
        after = sum(each["step"] > since["step"] for each in trained)
        if after < _FLAT_MEASUREMENTS or since["step"] > 2 / 3 * trained[-1]["step"]:
            return None
        last = trained[-1]["step"]
        return (
            f"kNN has not risen since step {since['step']:.0f} ({since['knn']:.1f} %), for "
            f"{last - since['step']:.0f} of {last:.0f} steps, by more than chance with {self._images:,} images: "
            "more training may not help; checkpoints/best.pt has the best state, and Ctrl-C ends the run"
        )

    def _error(self, knn: float) -> float:
        """Standard error of a difference of two accuracies, in percent."""
        return 100 * math.sqrt(2 * knn / 100 * (1 - knn / 100) / self._images)

    def _features(self, means: dict[str, float]) -> Verdict:
        rank, most = means["effective_rank"], rank_limit(self._rows)
        if means["feature_spread"] < self._healthy["feature_spread"][0] or (rank < 1.5 and most > 3):
            found = f"the features of all images are alike (spread {means['feature_spread']:.2f}, rank {rank:.1f})"
            return Verdict("collapsed", found, self._calmer())
        if rank < self._healthy["effective_rank"][0]:
            found = f"the features use few directions (effective rank {rank:.1f} of {most})"
            return Verdict("watch", found, self._calmer())
        return HEALTHY

    def _accuracy(self) -> Verdict:
        """What the measured accuracies say; differences within the error of measurement say nothing."""
        settings, measured = self._settings, self._accuracies
        # The first of several is left alone: many new networks that do well begin below their untrained state.
        spared = settings.init_from is None and (
            settings.epochs is None or settings.epochs > settings.probe.every_epochs
        )
        enough = 3 if spared else 2
        if len(measured) < enough or measured[0]["step"]:
            return HEALTHY
        untrained, last = measured[0]["knn"], measured[-1]["knn"]
        best = max(measured[1:], key=lambda each: each["knn"])
        error = self._error(max(untrained, best["knn"]))
        if last < untrained - 2 * error:
            figures = f"kNN {last:.1f} %, {settings.beginning} {untrained:.1f} %"
            found = f"the last measurement is below the network before training ({figures})"
            more = "more epochs, or other views: sslight views shows whether they fit the images"
            if settings.init_from is not None:
                more = "a lower lr, or freeze_backbone_epochs"
                if not settings.freeze_norms:
                    more = "freeze_norms=true (for a network with batch norms), a lower lr, or freeze_backbone_epochs"
            return Verdict("watch", found, self._calmer(more))
        if all(each["knn"] < best["knn"] - 2 * error for each in measured[-2:]):
            found = f"the accuracy fell (kNN {best['knn']:.1f} % at step {best['step']:.0f}, now {last:.1f} %)"
            return Verdict("watch", found, self._calmer("fewer epochs; best.pt is the best so far"))
        since = next(each for each in measured[1:] if each["knn"] >= best["knn"] - error)
        if measured[-1]["step"] >= 2 * since["step"] and measured[-1]["entropy"] < 0.5 * since["entropy"]:
            return Verdict(
                "watch",
                f"the accuracy has stalled while the targets became sharper (kNN {since['knn']:.1f} % at step "
                f"{since['step']:.0f}, now {last:.1f} %; entropy {since['entropy']:.2f}, now "
                f"{measured[-1]['entropy']:.2f} of the maximum)",
                f"fewer epochs, or a higher {_SHARPNESS[settings.method][1]}",
            )
        return HEALTHY

    def _dino(self, means: dict[str, float]) -> Verdict:
        dino = self._settings.dino
        entropy, spread = means["teacher_entropy"], means["target_spread"]
        ln_k = math.log(dino.head_output_dim)
        # What a target tells of its image, in nats: entropy of the mean target less mean entropy.
        information = (spread - entropy) * ln_k
        share = information / math.log(min(dino.head_output_dim, self._settings.views.num_global * self._rows))
        if share < _LEAST_TOLD and spread > 0.9:
            temp = means["teacher_temp"]
            return Verdict(
                "watch",  # runs have come back from it after 200 steps
                f"the teacher's targets are nearly uniform (entropy {entropy:.3f} of ln K) and say little",
                self._calmer(f"a lower dino.teacher_temp than {temp:.2g}, such as {temp / 2:.2g}, or milder views"),
            )
        if share < _LEAST_TOLD or spread < self._healthy["target_spread"][0]:
            state: Literal["collapsed", "watch"] = "collapsed" if share < 0.06 else "watch"
            found = (
                "the teacher's targets hardly differ between images "
                f"(entropy of their mean {spread:.2f}, of each {entropy:.2f} of ln K)"
            )
            advice = self._calmer("a higher dino.teacher_temp, or a lower dino.center_momentum")
            if dino.center_momentum > 0.99:
                advice = f"dino.center_momentum=0.9: at {dino.center_momentum:g} there is no centering"
            return Verdict(state, found, advice)
        if means["divergence"] > 1.5 * information:
            found = (
                f"the targets change faster than the student can follow (divergence {means['divergence']:.1f} nats, of "
                f"{information:.1f} that they carry)"
            )
            if dino.teacher_momentum < 0.9:
                return Verdict("watch", found, f"dino.teacher_momentum=0.99: it is {dino.teacher_momentum:g}")
            return Verdict("watch", found, self._calmer("a higher dino.teacher_momentum"))
        return HEALTHY

    def _swav(self, means: dict[str, float], step: int) -> Verdict:
        swav = self._settings.swav
        if means["assignment_entropy"] > self._healthy["assignment_entropy"][1]:
            return Verdict(
                "watch" if step < 100 else "collapsed",  # runs that go well may begin so
                f"the assignments are nearly uniform (entropy {means['assignment_entropy']:.3f} of ln P)",
                f"a lower swav.epsilon than {swav.epsilon:g}, such as {0.6 * swav.epsilon:.2g}",
            )
        gain = 1 - means["loss"] / math.log(swav.num_prototypes)
        if gain < 0.01:
            return Verdict(
                "watch",
                f"the assignments of one view are not predicted from another (loss {means['loss']:.2f}, chance "
                f"{math.log(swav.num_prototypes):.2f})",
                self._calmer("fewer prototypes (swav.num_prototypes), or no queue (swav.queue_size=0) at first"),
            )
        return HEALTHY

    def _moco(self, means: dict[str, float]) -> Verdict:
        moco = self._settings.moco
        chance = math.log(1 + moco.queue_size)
        loss = means["loss"] - moco.koleo_weight * means.get("koleo_loss", 0.0)
        if loss > 0.97 * chance:
            found = f"queries do not find their keys (loss {loss:.2f}, chance {chance:.2f})"
            if moco.key_momentum < 0.9:
                advice = f"moco.key_momentum=0.99: at {moco.key_momentum:g} the queue's keys are useless"
                return Verdict("collapsed", found, advice)
            return Verdict("watch", found, self._calmer(f"a lower moco.temperature than {moco.temperature:g}"))
        return HEALTHY

    def _calmer(self, otherwise: str = "a lower lr, or a longer warm-up (optim.warmup_epochs)") -> str:
        """The learning rate, if it is beyond what is usual, or something else."""
        return lower_rate(self._settings) or otherwise


def lower_rate(settings: PretrainSettings) -> str | None:
    """A usual learning rate, and why, if the peak is beyond what is usual."""
    name = settings.optim.name
    rate, highest = settings.lr * settings.batch_size / 256, _HIGHEST_RATE[name]
    if rate <= highest:
        return None
    lower = highest * 256 / settings.batch_size / 3
    return f"lr={float(f'{lower:.1g}'):g}: lr · batch_size / 256 = {rate:g} is above the usual {highest:g} for {name}"
