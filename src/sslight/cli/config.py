"""``sslight config``: what a setting means."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from sslight.cli.terminal import AsJson, as_typed, columns, say, say_json
from sslight.config import (
    DetectSettings,
    EvaluateSettings,
    Explanation,
    ExportSettings,
    FinetuneSettings,
    build_settings,
    explain,
    section_keys,
    setting_keys,
    to_yaml,
    translate_original,
)
from sslight.config.fields import Section

_OTHERS: dict[str, type[Section]] = {
    "evaluate": EvaluateSettings,
    "detect": DetectSettings,
    "export": ExportSettings,
    "finetune": FinetuneSettings,
}


def config(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A setting such as lr, or a group such as views; `evaluate`, `detect`, `finetune` "
            "or `export` for those of these commands; without it, list all.",
            show_default=False,
        ),
    ] = None,
    from_original: Annotated[
        Path | None, typer.Option(help="Print a configuration of the original implementation as a recipe file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a setting: meaning, unit, default, what to try."""
    if from_original is not None:
        _print_translation(from_original.expanduser(), as_json=as_json)
        return
    found = _explanations(key)
    if as_json:
        say_json([asdict(each) for each in found] if len(found) > 1 else asdict(found[0]))
    elif len(found) == 1:
        _print_one(found[0])
    else:
        _print_table(found)


def _explanations(key: str | None) -> list[Explanation]:
    """Those of one setting, of a group, or of all."""
    command, _, name = (key or "").partition(".")
    if of := _OTHERS.get(command):
        keys = setting_keys(of) if not name else section_keys(name, of) or [name]
        return [replace(each, key=f"{command}.{each.key}") for each in (explain(name, of) for name in keys)]
    return [explain(each) for each in (setting_keys() if key is None else section_keys(key) or [key])]


def _print_translation(path: Path, *, as_json: bool) -> None:
    translation = translate_original(path)
    settings = build_settings(translation.settings, {})
    if as_json:
        say_json({"settings": settings.model_dump(mode="json"), "notes": translation.notes})
        return
    print(f"# {path.name} of the original implementation, as settings of this program")
    print(*(f"# - {note}\n" for note in translation.notes), to_yaml(settings), sep="", end="")


def _print_one(setting: Explanation) -> None:
    say(setting.key, style="bold")
    say(
        f"  {setting.meaning}\n"
        f"  unit:    {setting.unit}\n"
        f"  default: {as_typed(setting.default)}   (a recipe may set another)\n"
        f"  try:     {setting.advice}"
    )


def _print_table(settings: list[Explanation]) -> None:
    rows = [(s.key, as_typed(s.default), s.meaning.split(";")[0].split(". ")[0].rstrip(".")) for s in settings]
    say(columns(("setting", "default", "meaning"), rows))
    say("\n`sslight config KEY` explains one in full; a recipe may set another default.")
