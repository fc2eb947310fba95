"""Weighted k-nearest-neighbor classification as a protocol."""

from sslight.evaluate.classifiers.knn import knn_answers
from sslight.evaluate.classifiers.metrics import accuracy_of_ranks
from sslight.evaluate.evaluation import Evaluation, Measurement
from sslight.train.machine.distributed import rank_and_size

_DEFAULT_K = 20
_KS = (1, 10, _DEFAULT_K, 100, 200)


def measure_knn(evaluation: Evaluation) -> Measurement | None:
    """KNN accuracies for all k; None in all processes but the first."""
    train, val = evaluation.both_features(evaluation.model.backbone)
    if rank_and_size()[0] > 0:
        return None
    settings, classes, most = evaluation.settings.knn, evaluation.sets.classes, len(train.labels)
    ks = settings.k or [k for k in _KS if k <= most]
    if ks[-1] > most:
        raise ValueError(f"knn.k={ks[-1]} is more than the {most} readable training images: lower it.")
    left_out = [str(k) for k in _KS if k > most] if settings.k is None else []
    evaluation.progress.say(f"searching the neighbors of {len(val.labels):,} images among {most:,}")
    answers = knn_answers(
        train.values,
        train.labels,
        val.values.to(evaluation.device),
        val.labels,
        ks=ks,
        temperature=settings.temperature,
        num_classes=len(classes),
    )
    default = min(ks, key=lambda k: (abs(k - _DEFAULT_K), k))
    return evaluation.measured(
        "knn",
        answers[default],
        val.labels,
        val.rows,
        {"k": default},
        by_k={k: accuracy_of_ranks(each, val.labels, classes) for k, each in answers.items()},
        notes=[f"k = {' and '.join(left_out)} left out: there are only {most} training images."] * bool(left_out),
    )
