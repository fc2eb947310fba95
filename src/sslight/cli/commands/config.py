"""``sslight config``: what a setting means."""

from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path

from sslight.cli.grammar import Words, short
from sslight.cli.terminal import AsJson, as_typed, columns, say, say_json
from sslight.config import (
    KINDS,
    ConfigSettings,
    Explanation,
    build_settings,
    explain,
    read_words,
    section_keys,
    setting_keys,
    take_settings,
    to_yaml,
    translate_original,
)
from sslight.config.explain import unknown_key


def config(words: Words = None, as_json: AsJson = False) -> None:
    """Explain a setting: meaning, unit, default, what to try."""
    key, typed = read_words("config", words)
    if path := take_settings(typed, ConfigSettings).from_original:
        if key:
            raise ValueError(f"{key[0]} would have no effect beside from_original={path}: leave one of them out.")
        _print_translation(path, as_json=as_json)
        return
    found = _explanations(*key)
    if as_json:
        say_json([asdict(each) for each in found] if len(found) > 1 else asdict(found[0]))
    elif len(found) == 1:
        _print_one(found[0])
    else:
        _print_table(found)


def _explanations(key: str = "pretrain") -> list[Explanation]:
    """Explain a setting or group of pre-training, or a command and its settings; ``views`` is both."""
    command, _, name = key.partition(".")
    kinds = [KINDS[command]] if command in KINDS else []
    own = [each for each in setting_keys(*kinds) if kinds and f"{each}.".startswith(f"{name}." if name else "")]
    group = (
        setting_keys() if key == "pretrain" else section_keys(key) or [each for each in setting_keys() if each == key]
    )
    if not own and not group:
        if near := get_close_matches(key, KINDS, n=1):
            raise ValueError(f"{key} is neither a setting nor a command: did you mean {near[0]}?")
        raise unknown_key(name, *kinds) if kinds and not section_keys(command) else unknown_key(key)
    return [*map(explain, group), *(replace(explain(each, *kinds), key=f"{command}.{each}") for each in own)]


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
    rows = [(s.key, as_typed(s.default), short(s)) for s in settings]
    say(columns(("setting", "default", "meaning"), rows))
    say("\n`sslight config KEY` explains one in full; a recipe may set another default.")
