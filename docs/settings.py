"""Writes docs/settings.md, the reference of all settings, from their schema: ``python docs/settings.py``."""

import json
import re
from pathlib import Path
from typing import Any

from sslight.config import COMMANDS, PretrainSettings
from sslight.config.schema.fields import Section

PAGE = Path(__file__).with_suffix(".md")
_COMMANDS = {"pretrain": PretrainSettings} | {
    name: command.kinds[0]
    for name, command in COMMANDS.items()
    if command.kinds and name != "pretrain" and command.kinds[0] is not PretrainSettings
}
_INTRODUCTION = """# Settings

All settings of the commands, typed as `key=value`. This page is generated from the program (`python docs/settings.py`);
`sslight config KEY` prints the same. Recipes may set other defaults. Put lists (`[a, b]`) in quotes.
"""
_TABLE = ["| setting | default | values | meaning |", "|---|---|---|---|"]
_TEXT = re.compile(r"(?P<meaning>.*?)\s*Unit: (?P<unit>.*?)\.\s*Try: (?P<advice>.*)", re.DOTALL)
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TEXTS = {"name", "name(s)", "path", "path(s)", "suffix", "path or name", "path or share", "name or number"}


def settings_page() -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *(line for name, of in _COMMANDS.items() for line in _command(name, of))])


def _command(name: str, of: type[Section]) -> list[str]:
    """The tables of a command: its own settings, then its groups."""
    schema = of.model_json_schema()
    own, groups = [], []
    for key, field in schema["properties"].items():
        if "$ref" not in field:
            own.append(_row(key, field, required=key in schema.get("required", ())))
            continue
        group = schema["$defs"][field["$ref"].rpartition("/")[2]]
        rows = [_row(f"{key}.{inner}", each, required=False) for inner, each in group["properties"].items()]
        groups += [f"### {key} ({name})", "", group["description"], "", *_TABLE, *rows, ""]
    more = "" if of in COMMANDS[name].kinds[-1:] else " It also takes settings of `sslight pretrain`."
    return [f"## `sslight {name}`", "", schema["description"] + more, "", *_TABLE, *own, "", *groups]


def _row(key: str, field: dict[str, Any], *, required: bool) -> str:
    text = _TEXT.fullmatch(" ".join(field["description"].split()))
    assert text, f"the docstring of {key} lacks its Unit or Try line"
    default = "must be set" if required else f"`{_typed(field['default'])}`"
    unit, values = text["unit"], _values(field)
    if unit in _TEXTS:
        values = values.replace("text or number", unit).replace("one or a list: text", unit).replace("text", unit)
    elif unit != "none" and not unit.startswith("true"):
        values = f"{values} ({unit})"
    return f"| `{key}` | {default} | {values} | {text['meaning']} *Try:* {text['advice']} |".replace("``", "`")


def _values(field: dict[str, Any]) -> str:
    """What a value may be, in words."""
    match field:
        case {"anyOf": kinds}:
            return " or ".join(map(_values, kinds))
        case {"enum": names}:
            return ", ".join(f"`{name}`" for name in names)
        case {"const": name}:
            return f"`{name}`"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "null"}:
            return "`null`"
        case {"type": "array", "prefixItems": items}:
            return f"{len(items)} numbers"
        case {"type": "array", "items": item}:
            return f"one or a list: {_values(item)}"
        case {"type": "string", "format": "path"}:
            return "path"
        case {"type": "string"}:
            return "text"
        case {"type": kind}:
            bounds = [f"{sign} {field[bound]:,}" for bound, sign in _BOUNDS.items() if bound in field]
            return " ".join(["integer" if kind == "integer" else "number", ", ".join(bounds)]).strip()
        case _:
            raise AssertionError(field)


def _typed(value: object) -> str:
    """A default as it is typed, numbers with at most five digits."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    return "null" if value is None else json.dumps(value).strip('"')


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
