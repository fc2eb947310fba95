"""When a file agrees with the PyTorch network, and what is said when it does not."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from sslight.export.checks.agreement import FLOAT16, FLOAT32, INT8, Agreement, Measures, Tolerance, check, compare
from sslight.export.checks.cost import cost_of, latencies
from sslight.intervals import Difference

FINE: dict[str, Any] = {
    "num_images": 9,
    "largest_difference": 1e-3,
    "largest_output": 2.0,
    "cosine_mean": 1.0,
    "cosine_min": 1.0,
    "same_neighbor": 1.0,
    "signal_to_noise": 60.0,
}


def nearest(features: torch.Tensor) -> torch.Tensor:
    similarity = torch.nn.functional.normalize(features, dim=1)
    return (similarity @ similarity.T - 3 * torch.eye(len(features))).argmax(1)


def classify(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels[nearest(features)]


def precision(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> tuple[float, Difference]:
    """The share of labels whose answer is right, in place of average precision."""
    old, new = (100 * float(((scores >= 0) == (labels > 0)).double().mean()) for scores in (before, after))
    return old, Difference(new - old, new - old - 1, new - old + 1)


MEASURES = Measures(nearest, classify, precision)


def compared(before: torch.Tensor, after: torch.Tensor) -> Agreement:
    labels = torch.arange(len(before)) % 2
    return compare([before], [after], labels, measures=MEASURES)


def test_what_is_measured_is_what_was_changed() -> None:
    before = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99]])
    found = compared(before, before)
    assert (found.largest_difference, found.same_neighbor, found.same_knn_class) == (0.0, 1.0, 1.0)
    assert found.cosine_min == pytest.approx(1.0)
    moved = before.clone()
    moved[1] = torch.tensor([0.3, 0.9])  # from its neighbour to the other two
    found = compared(before, moved)
    assert found.largest_difference == pytest.approx(0.8)
    assert found.cosine_min == pytest.approx(float(torch.cosine_similarity(before[1], moved[1], dim=0)))
    assert found.same_neighbor == 0.75  # its own is another one; the others keep theirs
    with pytest.raises(ValueError, match="the mean cosine of its features is"):
        check(found, FLOAT32, "format=onnx")


def test_equal_images_may_take_each_others_place() -> None:
    before = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    after = before + torch.tensor([[0.0, 0.0], [0.0, 1e-3], [0.0, 0.0], [0.0, 0.0]])
    assert (nearest(before) != nearest(after)).any()
    assert compared(before, after).same_neighbor == 1.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cosine_mean": float("nan")}, "the mean cosine of its features is nan, below 0.9999"),
        ({"signal_to_noise": 30.2}, "what it changes is 30 dB below what tells images apart, less than 40 dB"),
        ({"same_neighbor": 0.9}, "90.0% of the images keep their nearest neighbor, fewer than 99.0%"),
        ({"same_knn_class": 0.5}, "50.0% of the images keep their kNN class, fewer than 99.0%"),
        ({"largest_difference": float("nan")}, "its outputs are not finite numbers"),
        ({"largest_difference": 0.1}, "its outputs differ by up to 0.1, more than 0.002"),
        (
            {"same_neighbor": 0.9, "spread": 0.021},
            "fewer than 99.0% (the network's own features differ between images by 2.1% of their size alone, so little "
            "decides: train it longer); ",
        ),
    ],
)
def test_a_disagreement_is_said_in_numbers(changes: dict[str, float], sentence: str) -> None:
    check(Agreement(**FINE), FLOAT32, "format=onnx")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check(Agreement(**{**FINE, **changes}), FLOAT32, "format=onnx")


MOVED = {"cosine_mean": 0.9, "same_neighbor": 0.3, "same_knn_class": 0.6, "signal_to_noise": 3.0}


@pytest.mark.parametrize("tolerance", [FLOAT16, INT8])
@pytest.mark.parametrize(
    "changes",
    [
        {"same_class": 0.98},
        {"same_class": 0.98, "accuracy": Difference(-0.8, -1.5, -0.1), "num_labeled": 500},
        {"same_class": 0.98, "accuracy": Difference(-1.5, -3.1, 0.1), "num_labeled": 500},  # may be chance
    ],
)
def test_features_may_move_if_the_classifier_keeps_its_classes(changes: dict[str, Any], tolerance: Tolerance) -> None:
    check(Agreement(**{**FINE, **MOVED, **changes}), tolerance, "format=onnx-int8")
    with pytest.raises(ValueError, match="cosine"):
        check(Agreement(**{**FINE, **MOVED}), tolerance, "format=onnx-int8")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"same_class": 0.75},
            "its classifier gives 75.0% of the images the class that the network gives them, fewer than 80.0%; ",
        ),
        (
            {"same_class": 0.75, "accuracy": Difference(-0.2, -2.8, 2.4), "num_labeled": 8},
            "the class that the network gives them (accuracy -0.2 points [-2.8, +2.4]), fewer than 80.0%; ",
        ),
        (
            {"same_class": 0.9, "accuracy": Difference(-2.5, -3.6, -1.4), "num_labeled": 8},
            "its classifier loses 2.5 points [1.4, 3.6] of accuracy on the 8 images with labels, more than 1; ",
        ),
        ({"same_class": float("nan")}, "its classifier gives nan% of the images"),
    ],
)
def test_a_classifier_that_loses_classes_is_refused_whatever_its_features_do(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        check(Agreement(**{**FINE, **changes}), INT8, "format=onnx-int8")
    assert "; tolerance.same_class and tolerance.accuracy accept it as it is." in str(refused.value)


@pytest.mark.parametrize(
    "tolerance", [FLOAT32, replace(FLOAT32, cosine=0.9, difference=None, signal_to_noise=None), INT8]
)
def test_rounding_is_accepted_whatever_the_tolerance(tolerance: Tolerance) -> None:
    votes = {"same_knn_class": 0.6, "same_neighbor": 0.5}
    check(Agreement(**{**FINE, **votes, "largest_difference": 7e-7}), tolerance, "format=onnx")
    with pytest.raises(ValueError, match="keep their kNN class"):
        check(Agreement(**{**FINE, **votes}), tolerance, "format=onnx")


def test_the_remedy_is_that_of_the_analysis_or_fits_the_format() -> None:
    worse = Agreement(**{**FINE, "same_class": 0.7})
    with pytest.raises(ValueError, match=r"; give more calibration images or export another format; tolerance\.same_"):
        check(worse, INT8, "format=executorch-int8")
    with pytest.raises(ValueError, match="; report this network, and export another format; tol"):
        check(worse, FLOAT32, "format=onnx")
    with pytest.raises(ValueError, match=r"; leave int8\.float_layers out; tolerance"):
        check(worse, INT8, "format=onnx-int8", "leave int8.float_layers out")


def test_accuracy_is_of_the_images_whose_class_the_classifier_has() -> None:
    features, labels = torch.eye(4), torch.tensor([0, 1, 1, 5])
    before, after = torch.eye(4, 2), torch.eye(4, 2)
    before[2] = torch.tensor([0.0, 1.0])
    after[2] = torch.tensor([1.0, 0.0])
    found = compare([features, before], [features, after], labels, measures=MEASURES)
    assert found.same_class == 0.75
    assert found.num_labeled == 3
    assert found.accuracy is not None
    assert [found.accuracy_before, found.accuracy.value] == pytest.approx([100.0, -100 / 3])
    none = compare([features, before], [features, after], labels + 2, measures=MEASURES)
    assert (none.accuracy, none.num_labeled) == (None, 0)


def test_each_label_of_several_is_an_answer_of_the_classifier() -> None:
    features = torch.eye(4)
    before = torch.tensor([[9.0, 1.0, 1.0, -1.0, -1.0]] * 4)
    flipped = before * torch.tensor([1.0, -1.0, -1.0, -1.0, -1.0])  # but for the largest
    none = torch.full((4, 5), -1.0)

    def of(after: torch.Tensor, before: torch.Tensor = before) -> Agreement:
        pairs = [features, before], [features, after]
        return compare(*pairs, None, measures=MEASURES, multi_label=True)

    assert of(before).same_class == of(none, none).same_class == 1.0
    assert of(flipped).same_class == 0.0
    some = before.clone()
    some[0, 1] = -1.0
    assert of(some).same_class == pytest.approx(2 * 8 / (8 + 9))  # of no, the rarer answer
    rare = none.clone()
    rare[0, 0] = 1.0
    assert of(none, rare).same_class == 0.0  # though 19 of 20 answers are the same
    with pytest.raises(ValueError, match=r"agrees with the network on 0\.0% of the labels that either gives or with"):
        check(of(flipped), INT8, "format=onnx-int8")


def test_labels_that_overlap_are_judged_by_their_mean_average_precision_too() -> None:
    features, labels = torch.eye(4), torch.tensor([[1, 0]] * 4)
    before = torch.tensor([[9.0, -9.0]] * 4)
    after = before.clone()
    after[0] = torch.tensor([-9.0, -9.0])
    found = compare([features, before], [features, after], labels, measures=MEASURES, multi_label=True)
    assert (found.accuracy_before, found.num_labeled, found.knn_top1_before) == (100.0, 4, None)
    assert found.accuracy == Difference(-12.5, -13.5, -11.5)
    lost = r"loses 12\.5 points \[11\.5, 13\.5\] of mean average precision on the 4 images with labels, more than 12"
    with pytest.raises(ValueError, match=lost):
        check(found, replace(INT8, accuracy=12.0), "format=onnx-int8")
    check(found, replace(INT8, accuracy=13.0), "format=onnx-int8")
    folders = compare([features, before], [features, before], labels[:, 0], measures=MEASURES, multi_label=True)
    assert (folders.accuracy, folders.num_labeled, folders.knn_top1_before) == (None, 0, 1.0)


def test_eight_bits_may_differ_in_single_numbers() -> None:
    check(Agreement(9, 0.5, 2.0, 0.99, 0.9, 0.7, 12.0), INT8, "format=onnx-int8")


def test_runs_take_turns() -> None:
    order: list[str] = []
    found = latencies({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, num_runs=7)
    assert set(found) == {"a", "b"}
    assert "".join(order) == "aaabbb" + "aaaaaa" + "bbbbbb" + "aaa" + "bbb"


@pytest.mark.parametrize("tolerance", [FLOAT32, INT8])
@pytest.mark.parametrize("logits", [torch.full((4, 3), torch.nan), -torch.eye(4, 3)])
def test_a_wrong_classifier_is_refused_though_the_features_agree(logits: torch.Tensor, tolerance: Tolerance) -> None:
    features = torch.tensor([[1.0, 0.1], [0.9, 0.2], [0.1, 1.0], [0.2, 0.9]])
    before = [features, torch.eye(4, 3)]
    found = compare(before, [features, logits], None, measures=MEASURES)
    with pytest.raises(ValueError, match="disagrees with the PyTorch network"):
        check(found, tolerance, "format=onnx")


def test_the_cost_of_a_network_is_counted_by_hand() -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            wide = self.conv(images)
            rows = wide.view(1, 8, 16)  # shows the same memory
            summed: torch.Tensor = (rows + rows.relu()).sum(-1)
            return summed

    found = cost_of(Small().eval(), torch.zeros(1, 3, 4, 4))
    assert found["parameters"] == 3 * 8 * 9
    assert found["multiply_adds"] == 3 * 8 * 9 * 16
    assert found["peak_activation_bytes"] == 3 * (8 * 16 * 4)  # the convolution, its relu and their sum
