"""What ``sslight export`` prints."""

from typing import Any

import pytest

from sslight.cli.commands.export import _counted, _inputs


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
