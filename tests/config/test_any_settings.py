"""Whatever is written as settings ends in valid settings or in a sentence."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslight.config import (
    DetectSettings,
    EvaluateSettings,
    PackSettings,
    PretrainSettings,
    build,
    build_settings,
    load_recipe,
    parse_assignments,
    recipe_names,
    setting_keys,
    take_settings,
    to_yaml,
    translate_original,
)
from sslight.config.original.defaults import DEFAULTS

MANY = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=40)

NUMBERS = st.one_of(
    st.integers(-3, 300), st.floats(0, 1), st.floats(), st.integers(), st.sampled_from([10**18, 10**400, -(10**30)])
)
SCALARS = st.one_of(
    NUMBERS,
    st.booleans(),
    st.none(),
    st.sampled_from(
        ["dino", "swav", "moco", "adamw", "muon", "sgd", "multistep", "bf16", "auto", "synthetic:40", "resnet18"]
    ),
    st.sampled_from(
        ["2001-99-99", "!!int ''", "!!timestamp x", "0x_", "1:99", "<<", "=", "~", "\0", "é\u2028", "\ud800"]
    ),
    st.text(max_size=12),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=5),
    st.lists(st.floats(0, 1), min_size=2, max_size=4),
    st.dictionaries(st.text(max_size=4), SCALARS, max_size=2),
)


def keys_of(kind: type[Any]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(setting_keys(kind)), st.sampled_from(["epoch", "data", "views", ""]), st.text())


def words_of(kind: type[Any]) -> st.SearchStrategy[list[str]]:
    """``key=value`` as they are typed, some of which are no such words."""
    word = st.one_of(
        st.builds("{}={}".format, keys_of(kind), VALUES.map(typed)),
        st.builds("{}={}".format, keys_of(kind), st.text()),
        st.text(),
    )
    return st.lists(word, max_size=6)


def typed(value: Any) -> str:
    if value == "\ud800":  # as an argument that is no UTF-8
        return str(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def check_sentence(error: ValueError) -> None:
    """One line for each wrong setting, none of them endless or a bare message of a library."""
    lines = str(error).split("\n")
    assert all(10 < len(line) < 3000 for line in lines), error
    assert not isinstance(error, UnicodeError)


def check_words(words: list[str]) -> None:
    try:
        built = load_recipe("dino_cnn_sslight_64", parse_assignments(words))
    except ValueError as error:
        check_sentence(error)
    else:
        assert isinstance(built, PretrainSettings)
        assert PretrainSettings.model_validate(yaml.safe_load(to_yaml(built))) == built


def check_words_of_others(words: list[str], others: list[str], packing: list[str]) -> None:
    for attempt in (
        lambda: build(
            EvaluateSettings, parse_assignments(words, EvaluateSettings), protocol="knn", model="a.safetensors"
        ),
        lambda: build(DetectSettings, parse_assignments(others, DetectSettings), model="a.safetensors"),
        lambda: take_settings(parse_assignments(packing, PackSettings), PackSettings),
    ):
        try:
            attempt()
        except ValueError as error:
            check_sentence(error)


def check_recipe(content: Any, damage: list[tuple[float, str]], path: Path) -> None:
    text = damaged(yaml.safe_dump(content), damage)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        built = load_recipe(str(path))
    except ValueError as error:
        check_sentence(error)
    else:
        assert isinstance(built, PretrainSettings)


def check_original(content: Any, pairs: list[str], damage: list[tuple[float, str]], path: Path) -> None:
    text = damaged(yaml.safe_dump(content), damage)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        built = build_settings(translate_original(path, pairs).settings, {})
    except ValueError as error:
        check_sentence(error)
    else:
        assert isinstance(built, PretrainSettings)


def damaged(text: str, damage: list[tuple[float, str]]) -> str:
    for place, piece in damage:
        position = int(place * len(text))
        text = text[:position] + piece + text[position + len(piece) // 2 :]
    return text


DAMAGE = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["[", "]", "{", ":", "- ", "&a ", "*a", "!!", "\t", "\n", "'", "#", "\0", "%"])
    ),
    max_size=3,
)
SECTIONS = st.fixed_dictionaries(
    {"inherits": st.sampled_from(recipe_names())},
    optional={
        section: st.one_of(
            VALUES,
            st.dictionaries(
                st.sampled_from([key.partition(".")[2] for key in setting_keys() if key.startswith(f"{section}.")]),
                VALUES,
                max_size=3,
            ),
        )
        for section in ("data", "views", "optim", "probe", "dino", "checkpoint")
    }
    | {key: VALUES for key in setting_keys() if "." not in key},
)
RECIPES = st.one_of(SECTIONS, st.dictionaries(st.sampled_from(setting_keys()), VALUES, max_size=4), VALUES)
ORIGINAL_KEYS = [f"{section}.{name}" if section else name for section, names in DEFAULTS.items() for name in names]
ORIGINALS = st.one_of(
    st.dictionaries(
        st.sampled_from([section for section in DEFAULTS if section]),
        st.one_of(VALUES, st.dictionaries(st.sampled_from([key.rpartition(".")[2] for key in ORIGINAL_KEYS]), VALUES)),
        max_size=3,
    ),
    VALUES,
    # Most random keys are unknown in their section: each at its place, with a value of any kind.
    st.sampled_from(ORIGINAL_KEYS).flatmap(
        lambda key: VALUES.map(
            lambda value: {key.partition(".")[0]: {key.partition(".")[2]: value}} if "." in key else {key: value}
        )
    ),
)
PAIRS = st.lists(st.one_of(st.sampled_from(ORIGINAL_KEYS), VALUES.map(str), st.text(max_size=10)), max_size=4)


@FEW
@given(words_of(PretrainSettings))
def test_any_words_end_in_settings_or_in_a_sentence(words: list[str]) -> None:
    check_words(words)


@FEW
@given(words_of(EvaluateSettings), words_of(DetectSettings), st.lists(st.text(), max_size=3))
def test_any_words_of_the_other_commands_do_too(words: list[str], others: list[str], packing: list[str]) -> None:
    check_words_of_others(words, others, packing)


@FEW
@given(RECIPES, DAMAGE)
def test_any_recipe_file_ends_in_settings_or_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: Any, damage: list[tuple[float, str]]
) -> None:
    check_recipe(content, damage, tmp_path_factory.getbasetemp() / "any.yaml")


@FEW
@given(ORIGINALS, PAIRS, DAMAGE)
def test_any_configuration_of_the_original_does_too(
    tmp_path_factory: pytest.TempPathFactory, content: Any, pairs: list[str], damage: list[tuple[float, str]]
) -> None:
    check_original(content, pairs, damage, tmp_path_factory.getbasetemp() / "any.yaml")


@pytest.mark.slow
def test_a_thousand_of_each_do(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    MANY(given(words_of(PretrainSettings))(check_words))()
    MANY(given(words_of(EvaluateSettings), words_of(DetectSettings), st.lists(st.text()))(check_words_of_others))()
    MANY(given(RECIPES, DAMAGE, st.just(path))(check_recipe))()
    MANY(given(ORIGINALS, PAIRS, DAMAGE, st.just(path))(check_original))()


BOMBS = {
    "aliases": "a: &a [1, 1]\n"
    + "\n".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else '*a'] * 9)}]" for n in range(30)),
    "a value that holds itself": "data.train: &a [*a]",
    "merged mappings": "a: &a {x: 1}\nb: {<<: [*a, *a]}",
    "depth": "data.train: " + "[" * 500,
    "size": "# " + "x" * 2**20,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_yaml_bomb_is_refused_before_it_unfolds(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[kind], encoding="utf-8")
    for read in (load_recipe, translate_original):
        with pytest.raises(ValueError, match=r"bomb.yaml .*(aliases|nested too deeply|more than the 1,048,576)"):
            read(str(path))


def test_settings_are_not_awaited_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for read in (load_recipe, translate_original):
        with pytest.raises(ValueError, match="it is a pipe, socket or device, not a file"):
            read(str(tmp_path / "pipe.yaml"))


def test_a_long_or_multiline_value_does_not_fill_the_screen() -> None:
    with pytest.raises(ValueError, match="is not a setting") as caught:
        parse_assignments(["x" * 10_000 + "=1"])
    assert len(str(caught.value)) < 600
    with pytest.raises(ValueError, match="epochs=") as caught:
        load_recipe("dino_cnn_sslight", {"epochs": "many\n" * 1000})
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["views.mean=[.nan, 0, 0]", "views.aspect_ratio=[1, .inf]", "optim.lars_eta=.inf"])
def test_a_number_that_is_not_finite_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="finite number"):
        load_recipe("dino_cnn_sslight", parse_assignments([word]))


def test_paths_with_brackets_and_number_signs_are_taken_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("[raw] #1", "[raw]/x", "a #b", "[not a list"):
        assert parse_assignments([f"data.train={path}"]) == {"data.train": path}
    assert parse_assignments(["data.train=[a, b]"]) == {"data.train": ["a", "b"]}
    (tmp_path / "[a, b]").mkdir()
    assert parse_assignments(["data.train=[a, b]"]) == {"data.train": "[a, b]"}  # there is such a folder


def test_the_name_of_a_list_is_taken_as_typed_and_a_share_is_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, value in (("part #1.txt", "part #1.txt"), ("0.1", 0.1), ("1e-2", 0.01), ("null", None), ("yes", "yes")):
        built = build_settings({}, parse_assignments([f"data.subset={text}"]))
        assert built.data.subset == value
    (tmp_path / "0123").touch()
    assert parse_assignments(["data.subset=0123"]) == {"data.subset": "0123"}
    assert parse_assignments(["data.labels=a #1.csv"]) == {"data.labels": "a #1.csv"}
