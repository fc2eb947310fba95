from pathlib import Path

import pytest

from sslight.config import (
    DetectSettings,
    PretrainSettings,
    build,
    load_recipe,
    parse_assignments,
    read_settings,
    to_yaml,
)


def test_what_a_run_writes_is_read_back_equal(tmp_path: Path) -> None:
    for name, settings in (
        ("detect", build(DetectSettings, {"data": "coco", "train_sizes": [64, 96], "output": "run"}, model="a.pt")),
        ("pretrain", load_recipe("dino_cnn_sslight", {"output": "run", "steps": 5})),
    ):
        file = tmp_path / f"{name}.yaml"
        file.write_text(to_yaml(settings))
        assert read_settings(file, type(settings)) == settings


def test_settings_of_another_kind_of_run_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(build(DetectSettings, {}, model="a.pt")))
    with pytest.raises(ValueError, match=r"config\.yaml does not hold the settings of such a run"):
        read_settings(file, PretrainSettings)
    file.write_text("a: [")
    with pytest.raises(ValueError, match="does not hold the settings"):
        read_settings(file, DetectSettings)


def test_typed_words_become_settings() -> None:
    typed = ["data=2017", "train_sizes=160", "strides=[32, 16, 16]", "val_split=[a, b]", "masks=true"]
    settings = build(DetectSettings, parse_assignments(typed, DetectSettings), model="a.pt")
    assert (settings.data, settings.train_sizes, settings.strides) == ("2017", [160], [16, 32])
    assert (settings.val_split, settings.masks) == (["a", "b"], True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_sizes", [], "needs at least one number"),
        ("train_sizes", [16], "greater than or equal to 32"),
        ("strides", [6], r"must be powers of two, such as \[16, 32\]; `sslight config detect.strides` explains it"),
        ("proposals", 4, "greater than or equal to 8"),
        ("test_size", 2000, "test_size=2000 is above max_size=1333.* set max_size=3333"),
    ],
)
def test_values_that_break_a_rule_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(DetectSettings, {key: value}, model="a.pt")
