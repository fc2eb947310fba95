"""kNN against the original's recorded accuracies, a loop over queries, and itself in blocks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from sslight.evaluate import knn_classify
from sslight.evaluate.classifiers import knn
from sslight.evaluate.classifiers.knn import knn_answers, nearest_neighbors
from sslight.evaluate.classifiers.metrics import label_answers

GOLDEN = Path(__file__).parents[2] / "golden" / "knn"
CASES = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_accuracies_are_the_recorded_ones(name: str) -> None:
    case = CASES[name]
    arrays = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / case["file"]).items()}
    scores = knn_classify(
        arrays["in.train_features"],
        arrays["in.train_labels"],
        arrays["in.test_features"],
        k=case["k"],
        temperature=case["T"],
        num_classes=case["num_classes"],
        leave_one_out=bool(case["offset"]),
    )
    ranked = scores.argsort(1, descending=True)
    hits = ranked[:, :5] == arrays["in.test_labels"][:, None]
    assert 100 * float(hits[:, 0].double().mean()) == pytest.approx(float(arrays["out.top1"]), abs=1e-9)
    assert 100 * float(hits.any(1).double().mean()) == pytest.approx(float(arrays["out.top5"]), abs=1e-9)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_scores_are_those_of_a_loop_over_the_queries(leave_one_out: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (40,), generator=generator)
    queries = bank if leave_one_out else torch.randn(7, 6, generator=generator, dtype=torch.float64)
    scores = knn_classify(bank, labels, queries, k=6, temperature=0.07, num_classes=5, leave_one_out=leave_one_out)
    for i, query in enumerate(queries):
        cosines = [float(F.cosine_similarity(query, row, dim=0)) for row in bank]
        others = [j for j in range(40) if not (leave_one_out and j == i)]
        expected = [0.0] * 5
        for j in sorted(others, key=lambda j: -cosines[j])[:6]:
            expected[int(labels[j])] += float(np.exp(cosines[j] / 0.07))
        assert scores[i].tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_blocks_do_not_change_the_scores(monkeypatch: pytest.MonkeyPatch, leave_one_out: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, labels = torch.randn(30, 4, generator=generator), torch.arange(30) % 3

    def scores() -> torch.Tensor:
        return knn_classify(bank, labels, bank, k=5, temperature=0.1, num_classes=3, leave_one_out=leave_one_out)

    whole = scores()
    monkeypatch.setattr(knn, "_BANK_BLOCK", 8)
    monkeypatch.setattr(knn, "_QUERY_BLOCK", 7)
    torch.testing.assert_close(scores(), whole, rtol=1e-5, atol=0)


def test_more_neighbours_than_images_are_refused() -> None:
    bank, labels = torch.randn(5, 2), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match="k=6 neighbors are more than the 5 images: choose k from 1 to 5"):
        knn_classify(bank, labels, bank, k=6, temperature=0.07, num_classes=1)
    with pytest.raises(ValueError, match="more than the 4 images"):
        knn_classify(bank, labels, bank, k=5, temperature=0.07, num_classes=1, leave_one_out=True)


def unit_vectors(num: int, seed: int, dim: int = 16) -> torch.Tensor:
    return F.normalize(torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("k", [1, 10, 20])
def test_scores_are_scikit_learns(k: int) -> None:
    bank, queries = unit_vectors(200, 0), unit_vectors(60, 1)
    labels = torch.arange(200) % 7
    scores = knn_classify(bank, labels, queries, k=k, temperature=0.07, num_classes=7)
    # On unit vectors 1 - d² / 2 is the cosine, for Euclidean distances d.
    theirs = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07)).fit(bank.numpy(), labels.numpy())
    shares = scores / scores.sum(1, keepdim=True)
    np.testing.assert_allclose(shares.numpy(), theirs.predict_proba(queries.numpy()), atol=1e-9)


def test_all_ks_at_once_are_each_by_itself() -> None:
    bank, queries = unit_vectors(90, 0), unit_vectors(40, 1)
    labels, wanted = torch.arange(90) % 7, torch.arange(40) % 7
    ks = [1, 10, 20, 80]
    together = knn_answers(bank, labels, queries, wanted, ks=ks, temperature=0.07, num_classes=7)
    assert list(together) == ks
    for k in ks:
        alone = knn_classify(bank, labels, queries, k=k, temperature=0.07, num_classes=7)
        assert torch.equal(together[k], label_answers(alone, wanted))


def test_neighbours_are_the_recorded_ones_nearest_first() -> None:
    case = CASES["two_sets"]
    arrays = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / case["file"]).items()}
    similarity, rows = nearest_neighbors(arrays["in.train_features"], arrays["in.test_features"], k=case["k"])
    assert torch.equal(rows, arrays["out.neighbours"])
    assert bool((similarity.diff(dim=1) <= 0).all())
