"""One grammar: help, table and examples of every command say what it reads."""

import re
import sys
from pathlib import Path

import pytest

from sslight.cli.main import app, main
from sslight.config import COMMANDS, KINDS, explain, setting_keys, usage
from tests.test_docs import resolve

ROOT = Path(__file__).parents[2]
TYPED = [name for name in COMMANDS if name != "evaluate detect"]


def help_of(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["sslight", *name.split(), "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("name", [*TYPED, "", "data", "bench"])
def test_help_fits_a_narrow_window_and_has_two_examples_that_are_read(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(name, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= 80
    examples = re.findall(r"^  (sslight .*)$", text.replace(" \\\n     ", ""), flags=re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        resolve(example)
    if name in TYPED:
        assert f"Usage: {usage(name)}\n" in text


def test_options_are_of_the_output_only_but_for_the_originals_files() -> None:
    from typer.main import get_command

    words = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs/api.md").read_text(encoding="utf-8")))
    found = set()
    waiting = [get_command(app)]
    while waiting:
        command = waiting.pop()
        found |= {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        waiting += getattr(command, "commands", {}).values()
    assert found <= {"--json", "--cfg", "--version", "--install-completion", "--show-completion"}
    assert words <= {*found, "--help"}


def test_every_setting_of_every_command_is_explained() -> None:
    for kind in KINDS.values():
        for key in setting_keys(kind):
            assert explain(key, kind).meaning


def test_the_table_in_the_documentation_is_that_of_the_program() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `sslight ([a-z ]+)` \| (.*?) \| (.*) \|$", page, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == TYPED
    for name, first, main_settings in rows:
        assert first.replace("`", "") == " ".join(COMMANDS[name].first)
        keys = [key for each in (name, f"{name} detect") if each in COMMANDS for key in COMMANDS[each].main]
        assert re.findall(r"`(.+?)`", main_settings) == keys
