"""What the documentation tells people to type is accepted, its numbers are those of the files, and no page is lost."""

import json
import re
from pathlib import Path

import pytest
import yaml

from sslight.cli.plan import with_hours
from sslight.config import (
    ExportSettings,
    FinetuneSettings,
    build_evaluate_settings,
    build_export_settings,
    build_finetune_settings,
    build_shown_recipes,
    load_recipe,
    parse_assignments,
)
from sslight.config.evaluate_settings import EvaluateSettings

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in (
    "index", "own-data", "health", "recipes", "troubleshooting", "python"
)}  # fmt: skip
QUOTES = str.maketrans("", "", "'")


def code(text: str) -> list[str]:
    """Inline code and the lines of blocks without a language."""
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", text)


CODE = sorted({snippet.translate(QUOTES) for text in PAGES.values() for snippet in code(text)})
COMMANDS = [snippet for snippet in CODE if snippet.startswith("sslight ") and "..." not in snippet]
OF_OTHER_COMMANDS = ("linear.", "network=", "recipe=", "format=", "tolerance.")
SETTINGS = [
    snippet
    for snippet in CODE
    if re.match(r"[a-z_.]+=[^\s=]", snippet)
    and not snippet.startswith(OF_OTHER_COMMANDS)
    and not re.search(r"\.\.\.|=S\b|=L\b|,B\]", snippet)
]


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 15
    assert len(SETTINGS) >= 30


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_resolve(command: str) -> None:
    _, verb, *words = command.split()
    match verb:
        case "plan" if len(words) > 1:
            with_hours(words[1:])
        case "pretrain" if words[0] == "auto":
            with_hours(words[1:])
        case "pretrain":
            recipe, *rest = words
            load_recipe("dino_cnn_sslight" if recipe == "mine.yaml" else recipe, parse_assignments(rest))
        case "bench" if len(words) > 2:
            load_recipe("dino_cnn_sslight" if words[1] == "RECIPE" else words[1], parse_assignments(words[2:]))
        case "views":
            recipes = [word.removeprefix("recipe=") for word in words if word.startswith("recipe=")]
            build_shown_recipes(recipes, {})
        case "evaluate" if len(words) > 1:
            protocol, checkpoint, *rest = words
            build_evaluate_settings(protocol, checkpoint, parse_assignments(rest, EvaluateSettings))
        case "finetune" if len(words) > 1:
            build_finetune_settings(words[0], parse_assignments(words[1:], FinetuneSettings))
        case "export":
            build_export_settings(words[0], parse_assignments(words[1:], ExportSettings))
        case _:
            assert verb in ("data", "recipes", "config", "compare", "evaluate", "bench", "finetune", "plan"), command


@pytest.mark.parametrize("snippet", SETTINGS)
def test_settings_of_the_pages_resolve(snippet: str) -> None:
    recipe = "dino_vit_sslight_64" if "patch_size" in snippet else "dino_cnn_sslight"
    if snippet.startswith(("swav.", "moco.")):
        recipe = f"{snippet[:4]}_cnn_sslight"
    load_recipe(recipe, parse_assignments(snippet.split()))


def test_published_numbers_are_those_of_the_program() -> None:
    published = json.loads((ROOT / "src/sslight/evaluate/published.json").read_text(encoding="utf-8"))
    rows = [row["top1"] for row in published["rows"]]
    rows += [row[name] for row in published["detection"]["rows"] for name in ("box_ap", "mask_ap")]
    section = PAGES["recipes"].split("## Published by the authors")[1].split("## Measured")[0]
    found = [float(number) for number in re.findall(r"\b\d\d\.\d\b", section)]
    assert sorted(found) == sorted(rows)


def test_measured_numbers_are_those_of_the_result_files() -> None:
    section = PAGES["recipes"].split("## Measured with this program")[1].split("## For 64 px")[0]
    results = "".join(
        (ROOT / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")
        for name in (
            "results/quickstart",
            "results/tiny-imagenet",
            "results/EVIDENCE",
            "replication/RESULTS",
            "replication/CIFAR10",
        )
    )
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own images")[0]
    found = re.findall(r"\b\d?\d\.\d\b", section + first_screen)
    assert len(found) >= 20
    assert set(found) <= set(re.findall(r"\b\d?\d\.\d\b", results))


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/.-]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"])))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    results = {str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks/results").glob("*.md")}
    examples = {str(path.relative_to(ROOT).with_suffix(".md")) for path in (ROOT / "examples").glob("*.*")}
    assert listed == pages | results | examples | {"CONTRIBUTING.md", "CHANGELOG.md"}
