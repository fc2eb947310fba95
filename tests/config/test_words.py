"""What typed words and YAML words become: numbers, paths, names of today."""

from pathlib import Path
from typing import Any

import pytest

from sslight.config import (
    KINDS,
    DetectSettings,
    EvaluateSettings,
    ExportSettings,
    ImportSettings,
    PackSettings,
    PretrainSettings,
    ReportSettings,
    ViewsPageSettings,
    build,
    build_settings,
    load_recipe,
    parse_assignments,
    read_settings,
    take_settings,
    to_yaml,
)
from sslight.config.explain import fields_of
from sslight.config.plain_yaml import parse_yaml, write_yaml
from sslight.config.schema.fields import Section


def load(*words: str) -> PretrainSettings:
    return load_recipe("dino_cnn_sslight", parse_assignments(words))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epochs=yes", "epochs=yes: input should be a valid integer"),
        ("epochs=true", "epochs=True: must be a number, which true and false are not"),
        ("workers=no", "workers=no: input should be a valid integer"),
        ("workers=false", "workers=False: must be a number"),
        ("lr=on", "lr=on: input should be a valid number"),
        ("data.subset=true", "data.subset=True: must be a number"),
        ("batch_size=0x20", "batch_size=0x20: input should be a valid integer"),
        ("probe.knn_k=1:30", "probe.knn_k=1:30: input should be a valid integer"),
        ("views.jitter=[true, 0.4, 0.2, 0.1]", "must be a number"),
        (
            "views.global_scale=0.3,1",
            r"with brackets, and in a shell with quotes: 'views\.global_scale=\[0\.3,1\]'",
        ),
        ("views.global_scale=0.3", r"must be a list such as \[0\.14, 1\.0\], with brackets"),
        ("views.global_scale=[0.3]", "must be a list such as"),
        ("views.global_scale=[0.3, 0.5, 1]", "must be a list such as"),
        ("optim.milestones=60", r"must be a list such as \[60, 80\]"),
        ("views.global_scale=[0.3,", r"lists need both brackets, and quotes in a shell"),
        ("views.blur_radius=[0.1, 1]", r"^views\.blur_radius is now called views\.blur_sigma: write that name\.$"),
        ("probe.val=images", r"^probe\.val is now called data\.val: write that name\.$"),
        ("views.grey_prob=0", r"now called views\.grayscale_prob"),
        ("views.solarise_prob=[0, 0]", r"now called views\.solarize_prob"),
    ],
)
def test_a_word_that_is_no_such_value_says_so(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(word)


def test_python_may_not_give_true_for_a_number_either() -> None:
    for key, value in {"epochs": True, "workers": False, "views.flip_prob": True}.items():
        with pytest.raises(ValueError, match=f"{key}={value}: must be a number"):
            load_recipe("dino_cnn_sslight", {key: value})
    with pytest.raises(ValueError, match=r"knn\.k=\[True\]: must be a number"):
        build(EvaluateSettings, {"knn.k": [True]}, protocol="knn", model="a.pt")


def test_zeros_in_front_are_neither_octal_nor_lost_from_names() -> None:
    settings = load("seed=0123", "data.subset=0123", "data.train=0123", "output=007")
    assert (settings.seed, settings.data.subset, settings.data.train) == (123, "0123", ["0123"])
    assert settings.output == Path("007")


def test_switches_take_the_words_of_people() -> None:
    assert load("compile=yes").compile
    assert not load("compile=off").compile
    assert load("probe.knn=no").probe.knn is False


def test_numbers_are_written_as_people_write_them() -> None:
    settings = load("lr=1e-1", "optim.min_lr=5E-5", "steps=1_000", "views.flip_prob=.5", "data.subset=0.1")
    assert (settings.lr, settings.optim.min_lr, settings.steps) == (0.1, 5e-5, 1000)
    assert (settings.views.flip_prob, settings.data.subset) == (0.5, 0.1)


@pytest.mark.parametrize("word", ["yes", "0123", "1e-3", "1:30", "2001-01-01", "null", "1.5", "~", "a: b", "é", "0x1F"])
def test_a_word_survives_being_written_and_read(word: str) -> None:
    assert parse_yaml(write_yaml({"word": word})) == {"word": word}


def test_a_path_with_brackets_or_a_hash_is_taken_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("[raw]").mkdir()
    assert load("data.train=[raw]").data.train == ["[raw]"]
    assert load("data.train=[raw] #1").data.train == ["[raw] #1"]
    assert load("data.subset=list #1.txt").data.subset == "list #1.txt"
    assert load("data.train=[a, b]").data.train == ["a", "b"]
    assert load("data.train=[2023, 2024]").data.train == ["2023", "2024"]


def test_a_tilde_is_the_home_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = load(
        "output=~/run", "init_from=~/a.pt", "data.train=[~/a, synthetic:9]", "data.val=~/v", "data.subset=~/l"
    )
    assert (settings.output, settings.init_from) == (Path("/home/me/run"), Path("/home/me/a.pt"))
    assert settings.data.model_dump()["train"] == ["/home/me/a", "synthetic:9"]
    assert (settings.data.val, settings.data.subset) == (["/home/me/v"], "/home/me/l")
    evaluation = build(
        EvaluateSettings,
        parse_assignments(["cache=~/c", "output=~/o"], EvaluateSettings),
        protocol="knn",
        model="timm:resnet18@~/w.pth",
    )
    assert evaluation.model == "timm:resnet18@/home/me/w.pth"
    assert (evaluation.cache, evaluation.output) == (Path("/home/me/c"), Path("/home/me/o"))
    detection = build(DetectSettings, {"data": "~/coco", "output": Path("~/o")}, model="~/b.pt")
    assert (detection.model, detection.data, detection.output) == (
        "/home/me/b.pt",
        "/home/me/coco",
        Path("/home/me/o"),
    )
    words = ["classifier=~/c", "output=~/o", "data.check=~/k", "data.calibration=[~/l]", "format=onnx-int8"]
    export = build(ExportSettings, parse_assignments(words, ExportSettings), model="~/b.pt")
    assert (export.model, export.classifier, export.output) == (
        "/home/me/b.pt",
        Path("/home/me/c"),
        Path("/home/me/o"),
    )
    assert (export.data.check, export.data.calibration) == (["/home/me/k"], ["/home/me/l"])
    for kind in (ViewsPageSettings, ReportSettings, PackSettings, ImportSettings):
        assert take_settings({"output": "~/r.html"}, kind).model_dump()["output"] == Path("/home/me/r.html")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("inherits: dino_cnn_sslight\n", encoding="utf-8")
    assert load_recipe("~/mine.yaml") == load()


def test_every_path_of_every_command_is_of_a_kind_that_expands_it() -> None:
    """A new setting that is a bare Path, or text that its docstring calls a path, fails here."""
    kinds: list[type[Section]] = [PretrainSettings, *KINDS.values()]
    for kind in kinds:
        for key, field in fields_of(kind).items():
            text = f"{field.annotation} {field.metadata}"
            if "pathlib.Path" in text or "Unit: path" in (field.description or ""):
                assert "AfterValidator" in text, f"{kind.__name__}.{key}"


@pytest.mark.parametrize("content", ["views:\n  blur_radius: [0.1, 1]\n", "views.blur_radius: [0.1, 1]\n"])
def test_an_old_name_in_a_recipe_or_a_run_names_the_file_and_the_new_name(tmp_path: Path, content: str) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("inherits: dino_cnn_sslight\n" + content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml: views\.blur_radius is now called views\.blur_sigma"):
        load_recipe(str(recipe))
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(load("output=x")).replace("blur_sigma", "blur_radius"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml .*views\.blur_radius is now called views\.blur_sigma"):
        read_settings(config, PretrainSettings)


def test_an_old_value_names_the_new_one() -> None:
    with pytest.raises(ValueError, match=r"input=normalised: is now written input=normalized"):
        build(ExportSettings, {"input": "normalised"}, model="b.pt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.train", "=", "X"], r"^data\.train and its value are apart: write data\.train=X, without spaces\.$"),
        (["data.train=", "X"], r"write data\.train=X, without spaces"),
        (["data.train", "=X"], r"write data\.train=X, without spaces"),
        (["data.train", "X"], r"write data\.train=X, without spaces"),
        (["epochs:", "10"], "write epochs=10, without spaces"),
        (["data.train=my", "images"], r"a value with spaces needs quotes, as in 'data\.train=my images'"),
        (["epochs:10"], "epochs:10 is not of the form key=value: write epochs=10"),
        (["=10"], "'=10' is not of the form key=value"),
    ],
)
def test_spaces_around_the_equals_sign_are_explained(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_assignments(words)


def test_numbers_of_the_originals_files_are_read_as_its_yaml_reader_reads_them(tmp_path: Path) -> None:
    from sslight.config import translate_original

    path = tmp_path / "original.yaml"
    path.write_text("SOLVER:\n  BASE_LR: 1e-1\n  WEIGHT_DECAY: 1.0e-06\nUSE_FP16: False\n", encoding="utf-8")
    settings: Any = build_settings(translate_original(path).settings, {})
    assert (settings.lr, settings.optim.weight_decay, settings.precision) == (0.1, 1e-6, "32")
