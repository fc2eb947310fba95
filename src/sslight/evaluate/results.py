"""``results.json``: what was measured, on what, how, and when."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sslight.evaluate.classifiers.metrics import Accuracy
from sslight.files import write_whole

FORMAT = "sslight-evaluation"
FILE_NAME = "results.json"
_PACKAGES = ("sslight", "torch", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation.

    Attributes:
        path: Its ``results.json``.
        protocol: ``knn``, ``linear (exact)``, ``linear (fast)`` or ``semi``.
        accuracy: On data.val; of kNN with k = 20, or with the k nearest to it that was measured.
        by_k: Of kNN: the accuracies for all k.
        notes: What a reader must know, a sentence each.
        content: All that ``results.json`` holds.
    """

    path: Path
    protocol: str
    accuracy: Accuracy
    by_k: dict[int, Accuracy]
    notes: list[str]
    content: dict[str, Any]


def write_result(
    path: Path, *, protocol: str, accuracy: Accuracy, by_k: dict[int, Accuracy], notes: list[str], **more: Any
) -> EvaluationResult:
    """Write ``results.json`` whole; ``more`` are further parts of its content, plain data."""
    content = write_content(
        path,
        protocol=protocol,
        accuracy=_without_classes(accuracy),
        **({"by_k": {str(k): _without_classes(value) for k, value in by_k.items()}} if by_k else {}),
        notes=notes,
        **more,
        per_class={name: {"accuracy": share, "images": n} for name, (share, n) in accuracy.per_class.items()},
    )
    return EvaluationResult(path, protocol, accuracy, by_k, notes, content)


def write_content(path: Path, *, protocol: str, **parts: Any) -> dict[str, Any]:
    """Write ``results.json`` whole, with what the results of all protocols share; its content."""
    content = {
        "format": FORMAT,
        "version": 1,
        "protocol": protocol,
        **parts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_whole(path, f"{text}\n")
    as_read: dict[str, Any] = json.loads(text)
    return as_read


def read_result(path: Path) -> dict[str, Any]:
    """The content of a ``results.json``, or of the one in a folder.

    Raises:
        ValueError: there is none, or it is not of this program.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): give a {FILE_NAME} or its folder.") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{file} is not a result of sslight evaluate: give a {FILE_NAME} or its folder.")
    return content


def _without_classes(accuracy: Accuracy) -> dict[str, Any]:
    values = asdict(accuracy)
    del values["per_class"]
    return values
