"""What a safetensors file of this program says of itself, without its weights."""

import json
from pathlib import Path
from typing import Any

import safetensors

from sslight.backbones.hub import is_public

# One entry, since safetensors writes several in random order: equal exports are equal bytes.
METADATA_KEY = "sslight"


def read_header(path: Path) -> dict[str, Any]:
    """What this program wrote into the file's metadata; empty for other files, and where there is none."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            return {}
        with safetensors.safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError):
        return {}
    return found if isinstance(found, dict) else {}


def further_notes(start: str | Path | None) -> dict[str, str]:
    """The notes of a backbone that was pre-trained from the weights ``start``.

    None if these are a run or an export of this program that itself began with new weights. Else ``source`` says what
    they are, of a path its last part alone; files that are gone and checkpoints, of which nothing is read, count as
    weights of others.
    """
    if start is None:
        return {}
    if is_public(str(start)):
        return {"source": f"{start}, pre-trained further"}
    path = Path(start).expanduser()
    header = read_header(path / "backbone.safetensors") or read_header(path)
    notes = header.get("notes")
    if header and not (isinstance(notes, dict) and "source" in notes):
        return {}
    return {"source": f"{path.name}, pre-trained further"}
