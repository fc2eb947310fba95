"""Weighted k-nearest-neighbour classification as a protocol."""

from sslight.evaluate.classifiers.knn import knn_ranks
from sslight.evaluate.classifiers.metrics import accuracy_of_ranks
from sslight.evaluate.evaluation import Evaluation, Measurement
from sslight.train.distributed import rank_and_size

_DEFAULT_K = 20


def measure_knn(evaluation: Evaluation) -> Measurement | None:
    """KNN accuracies for all k; None in all processes but the first."""
    train, train_labels, val, val_labels = evaluation.both_features(evaluation.model.backbone)
    if rank_and_size()[0] > 0:
        return None
    settings, classes = evaluation.settings.knn, evaluation.sets.classes
    if settings.k[-1] > len(train):
        raise ValueError(f"knn.k={settings.k[-1]} is more than the {len(train)} readable training images: lower it.")
    evaluation.progress.say(f"searching the neighbours of {len(val):,} images among {len(train):,}")
    ranks = knn_ranks(
        train,
        train_labels,
        val.to(evaluation.device),
        val_labels,
        ks=settings.k,
        temperature=settings.temperature,
        num_classes=len(classes),
    )
    by_k = {k: accuracy_of_ranks(rank, val_labels, classes) for k, rank in ranks.items()}
    default = min(settings.k, key=lambda k: (abs(k - _DEFAULT_K), k))
    return Measurement("knn", by_k[default], {"k": default}, by_k=by_k)
