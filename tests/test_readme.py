"""What the README tells people to type is accepted, and its numbers are those of the recipes."""

import re
from pathlib import Path

import pytest

from sslight.config import load_recipe, parse_assignments, read_recipe, recipe_names
from tests.test_docs import resolve

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", "")
CODE = re.findall(r"`([^`\n]+)`", README) + re.findall(r"^(?:\.venv/bin/)?sslight .*$", README, flags=re.MULTILINE)
COMMANDS = [
    code.replace(".venv/bin/", "")
    for code in CODE
    if re.match(r"(\.venv/bin/)?sslight [a-z]", code) and "..." not in code and "--cfg" not in code
]
ASSIGNMENTS = sorted({code for code in CODE if re.fullmatch(r"[a-z_.]+=[^\s]+", code)})


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 20
    assert len(ASSIGNMENTS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_resolve_to_settings(command: str) -> None:
    resolve(command)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_settings_resolve(assignment: str) -> None:
    overrides = parse_assignments([assignment])
    load_recipe("dino_vit_sslight" if "vit" in assignment else "dino_cnn_sslight", overrides)


PUBLISHED = [name for name in recipe_names() if name.endswith(("_baseline", "_sslight"))]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_those_of_the_recipe_files(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| .* \| (.*) \|$", README, flags=re.MULTILINE)
    assert row
    expected = next(line for line in read_recipe(name).header if line.startswith("expected"))
    assert re.findall(r"\d\d\.\d", row[1]) == re.findall(r"\d\d\.\d", expected)


@pytest.mark.parametrize("target", ["quickstart", "test", "check", "format", "bench"])
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"(?:\]\(|src=\"|srcset=\")(?!http)([^)#\"]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
