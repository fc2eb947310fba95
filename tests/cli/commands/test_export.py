"""What ``sslight export`` prints."""

from typing import Any

import pytest

from sslight.cli.commands.export import _accuracy, _counted, _inputs
from sslight.export.checks.agreement import Agreement
from sslight.intervals import Difference


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "2.10 M parameters, 300 M multiply-adds, 4.50 MB of results alive at once"),
        ({"peak_activation_bytes": None}, "2.10 M parameters, 300 M multiply-adds"),
        ({"peak_activation_bytes": None, "multiply_adds": None}, "2.10 M parameters"),
    ],
)
def test_what_was_not_counted_is_left_out(changes: dict[str, Any], text: str) -> None:
    cost = {"parameters": 2_100_000, "multiply_adds": 300_000_000, "peak_activation_bytes": 4_500_000}
    assert _counted(cost | changes) == text


def test_accuracy_is_said_before_and_after() -> None:
    change = {"accuracy_before": 91.2, "accuracy": Difference(-0.4, -1.1, 0.3), "num_labeled": 40}
    found = Agreement(40, 0.1, 1.0, 1.0, 1.0, 1.0, 60.0, **change)  # type: ignore[arg-type]
    assert _accuracy(found) == "accuracy 91.2 → 90.8 % (-0.4 points [-1.1, +0.3]) on 40 images of its classes"
    found = Agreement(40, 0.1, 1.0, 1.0, 1.0, 1.0, 60.0, multi_label=True, **change)  # type: ignore[arg-type]
    assert _accuracy(found).startswith("mean average precision 91.2 → 90.8 % (")


def test_files_are_named_by_the_arrays_that_they_take() -> None:
    def file(*shape: int | str, **more: Any) -> dict[str, Any]:
        return {"input": {"shape": [*shape], "dtype": "uint8"}, **more}

    files = {
        "a.onnx": file("batch", 8, 8, 3, batch="dynamic"),
        "a.tflite": file(1, 8, 8, 3, batch=1),
        "a.pte": file(1, 8, 8, 3, batch=1),
        "a.mlpackage": {"batch": 1},
        "a.safetensors": file("batch", 3, 8, 8),
    }
    assert _inputs(files) == {"uint8 ['batch', 8, 8, 3]": ["a.onnx"], "uint8 [1, 8, 8, 3]": ["a.tflite", "a.pte"]}
