"""Which layers stay in float, with a network whose noise is known."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from sslight.export.checks.agreement import Agreement
from sslight.export.checks.sensitivity import Quantization, groups, quantize_within

NOISE = {"a": 1.0, "b": 8.0, "c": 2.0, "d": 4.0, "e": 1.0, "f": 1.0}
FINE = Agreement(9, 0.1, 1.0, 0.99, 0.9, 1.0, 0.0)


class Known:
    """A file whose signal-to-noise ratio (here plain minus noise) is the sum over its layers in 8 bits."""

    methods = ("minmax", "entropy")
    layers = tuple(NOISE)

    def write(self, path: Path, *, method: str, float_layers: Iterable[str]) -> None:
        noise = sum(value for name, value in NOISE.items() if name not in {*float_layers})
        path.write_text(str(noise + (10 if method == "entropy" else 0)))


def found(path: Path, noise_at_most: float, float_layers: int | None = None) -> Quantization:
    return quantize_within(
        Known(),
        path,
        float_layers=float_layers,
        judge=lambda file: replace(FINE, signal_to_noise=-float(file.read_text())),
        accepts=lambda agreement: agreement.signal_to_noise >= -noise_at_most,
        say=lambda line: None,
    )


@pytest.mark.parametrize(("limit", "kept"), [(17, ""), (9, "b"), (5, "bd"), (3, "bdc"), (1, "bdc")])
def test_the_worst_layers_stay_in_float_until_the_file_is_accepted_or_half_of_them_do(
    limit: float, kept: str, tmp_path: Path
) -> None:
    result = found(tmp_path / "file", limit)
    assert (result.method, result.num_layers) == ("minmax", 6)
    assert result.by_method == {"minmax": -17, "entropy": -27}
    assert result.float_layers == list(kept)
    assert float((tmp_path / "file").read_text()) == 17 - sum(NOISE[name] for name in kept)
    assert list(result.by_layer)[:3] == (list("bdc") if kept else [])
    assert (result.accepted, result.signal_to_noise) == (limit >= 3, -float((tmp_path / "file").read_text()))


def test_a_number_of_layers_is_kept_as_asked_for(tmp_path: Path) -> None:
    assert found(tmp_path / "file", 17, float_layers=2).float_layers == ["b", "d"]
    assert found(tmp_path / "file", 1, float_layers=0).float_layers == []
    with pytest.raises(ValueError, match=r"int8\.float_layers=7 is more than the 6 layers of the network"):
        found(tmp_path / "file", 1, float_layers=7)


@pytest.mark.parametrize(
    ("limit", "float_layers", "remedy"),
    [
        (9, None, "give more calibration images, and such as data.check has (this file held on those that judged it)"),
        (1, None, "export onnx-fp16, about as small as a file that is half in float: 3 layers in float took this one"),
        (1, 0, "leave int8.float_layers out, which keeps the worst layers in float (all in 8 bits: -17 dB)"),
        (1, 2, "leave int8.float_layers out, which keeps"),
        (1, 4, "export onnx-fp16, about as small as a file that is half in float: 4 layers in float took this one"),
    ],
)
def test_the_remedy_fits_what_was_tried(limit: float, float_layers: int | None, remedy: str, tmp_path: Path) -> None:
    assert found(tmp_path / "file", limit, float_layers).remedy("onnx-int8").startswith(remedy)


def test_what_follows_a_product_goes_with_it() -> None:
    assert groups("PabPPc", is_product=lambda each: each == "P") == [["P", "a", "b"], ["P"], ["P", "c"]]
