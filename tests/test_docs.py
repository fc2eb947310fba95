"""What the documentation tells people to type is accepted, its numbers are those of the files, and no page is lost."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

from sslight.config import COMMANDS as COMMANDS_OF_THE_PROGRAM
from sslight.config import (
    KINDS,
    DetectSettings,
    EvaluateSettings,
    ExportSettings,
    FinetuneSettings,
    PretrainSettings,
    build,
    load_recipe,
    parse_assignments,
    read_words,
    recipe_names,
    setting_keys,
    take_settings,
)

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}


def code(text: str) -> list[str]:
    """Inline code and the lines of blocks without a language."""
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", text)


CODE = sorted({snippet for text in PAGES.values() for snippet in code(text)})
OF_SETTINGS = ("index", "own-data", "health", "recipes", "troubleshooting", "python")
COMMANDS = [
    snippet for snippet in CODE if re.match("sslight [a-z]", snippet) and not re.search(r"\.\.\.|--|[|…;]", snippet)
]
SETTINGS = [
    snippet.replace("'", "")
    for snippet in sorted({snippet for name in OF_SETTINGS for snippet in code(PAGES[name])})
    if re.match(r"[a-z_.]+=[^\s=]", snippet.replace("'", "")) and not re.search(r"\.\.\.|=S\b|=L\b|,B\]", snippet)
]


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 15
    assert len(SETTINGS) >= 30


def resolve(command: str) -> None:
    """Read the words of a command as the command line does, and build the settings from them."""
    words = shlex.split(command.split(" > ")[0], comments=True)[1:]
    assert words[0] in {name.split()[0] for name in COMMANDS_OF_THE_PROGRAM}
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS_OF_THE_PROGRAM), None)
    if name is None or (
        len(words) <= len(name.split()) + (words[0] == "evaluate") and name not in ("recipes", "config")
    ):
        return  # the bare name of a command
    first, typed = read_words(name, words[1 if words[0] == "evaluate" else len(name.split()) :])
    match name:
        case "evaluate":
            build(EvaluateSettings, typed, protocol=first[0], model=first[1])
        case "evaluate detect":
            build(DetectSettings, typed, model=first[1])
        case "finetune":
            build(FinetuneSettings, typed, model=first[0])
        case "export":
            build(ExportSettings, typed, model=first[0])
        case _:
            kinds = COMMANDS_OF_THE_PROGRAM[name].kinds
            for kind in kinds:
                if kind is not PretrainSettings:
                    take_settings(typed, kind)
            if PretrainSettings in kinds:
                load_recipe(first[0] if first[0] in recipe_names() else "dino_cnn_sslight", typed)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_resolve(command: str) -> None:
    resolve(command)


@pytest.mark.parametrize("snippet", SETTINGS)
def test_settings_of_the_pages_resolve(snippet: str) -> None:
    recipe = "dino_vit_sslight_64" if "patch_size" in snippet else "dino_cnn_sslight"
    if snippet.startswith(("swav.", "moco.")):
        recipe = f"{snippet[:4]}_cnn_sslight"
    if all(word.partition("=")[0] in setting_keys() for word in snippet.split()):
        start = ["init_from=weights.pth"] if "freeze_norms" in snippet else []
        load_recipe(recipe, parse_assignments([*start, *snippet.split()]))
    else:
        parse_assignments(snippet.split(), *KINDS.values())


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


def test_the_settings_page_is_that_of_the_schema() -> None:
    page = runpy.run_path(str(ROOT / "docs/settings.py"))["settings_page"]()
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == page, "write it anew: python docs/settings.py"


def test_commands_fit_into_the_width_of_a_page() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 100 or not re.match(r"(\.venv/bin/)?(sslight|pip|python) ", line), (
                f"{page.name}: {line}"
            )


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/.-]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"])))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    results = {str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").glob("re*/*.md")}
    examples = {str(path.relative_to(ROOT).with_suffix(".md")) for path in (ROOT / "examples").glob("*.*")}
    assert listed == pages | results | examples | {"CONTRIBUTING.md", "CHANGELOG.md"}
