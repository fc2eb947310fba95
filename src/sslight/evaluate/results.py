"""``results.json``: what was measured, on what, how, and when; and beside it the rank of every image."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sslight.backbones import num_features, weights_fingerprint
from sslight.config import DetectSettings, EvaluateSettings, FinetuneSettings
from sslight.data import BadImage
from sslight.evaluate.classifiers.metrics import Accuracy
from sslight.evaluate.evaluation import Measurement
from sslight.evaluate.model import EvaluatedModel, default_folder
from sslight.files import whole_file, write_whole
from sslight.reading import near_name
from sslight.train.record.run_folder import package_versions

FORMAT = "sslight-evaluation"
FILE_NAME = "results.json"
_RANKS, _SCORES = "ranks.safetensors", "scores.safetensors"
# They say where and how fast, not what is measured.
_NOT_IN_THE_NAME = {
    *("model", "output", "cache", "devices", "workers", "feature_batch_size", "resume", "log_every", "logger"),
    *("sample", "checkpoint"),
}
_PACKAGES = ("sslight", "torch", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation."""

    path: Path  # its results.json
    protocol: str  # knn, linear (published), linear (trained), linear (fast) or semi
    accuracy: Accuracy  # on data.val; of kNN with k = 20, or with the k nearest to it that was measured
    by_k: dict[int, Accuracy]  # of kNN: for all k
    notes: list[str]  # what a reader must know, a sentence each
    content: dict[str, Any]  # all that results.json holds


def checkpoint_facts(
    settings: EvaluateSettings | DetectSettings | FinetuneSettings, model: EvaluatedModel
) -> dict[str, Any]:
    """What is measured, plain data."""
    return {
        "path": settings.model,
        "backbone": model.info.name,
        "network": settings.network,
        "num_features": num_features(model.backbone),
        "notes": {"weights": model.notes, **model.info.notes},
        "weights_sha256": weights_fingerprint(model.backbone),
    }


def result_folder(settings: EvaluateSettings | DetectSettings, protocol: str, identity: dict[str, Any]) -> Path:
    """Where the result goes: output, or a folder named after all that is measured (``identity``: on what)."""
    if settings.output is not None:
        return settings.output
    measured = [settings.model_dump(mode="json", exclude=_NOT_IN_THE_NAME), identity]
    digest = hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:8]
    return default_folder(settings.model) / f"{protocol}-{digest}"


def remark_on(folder: Path) -> str | None:
    """A sentence if results go, unasked, to the folder that one stands in."""
    if folder.parent != Path("evaluation"):
        return None
    return f"results go to {folder} in the current folder; output=FOLDER chooses another"


def write_result(path: Path, measured: Measurement, *, notes: list[str], **more: Any) -> EvaluationResult:
    """Write ``results.json`` whole; ``more`` are further parts of its content, plain data."""
    accuracy, by_k = measured.accuracy, measured.by_k
    content = write_content(
        path,
        protocol=measured.protocol,
        accuracy=_without_classes(accuracy),
        **({"by_k": {str(k): _without_classes(value) for k, value in by_k.items()}} if by_k else {}),
        notes=notes,
        details=measured.details,
        **more,
        per_class={name: {"accuracy": share, "images": n} for name, (share, n) in accuracy.per_class.items()},
        confusions=measured.confusions,
    )
    return EvaluationResult(path, measured.protocol, accuracy, by_k, notes, content)


def named_reasons(images: Iterable[BadImage]) -> list[dict[str, str]]:
    """The unreadable images as a result lists them, plain data."""
    return [{"name": image.name, "reason": image.reason} for image in images]


def write_content(path: Path, *, protocol: str, **parts: Any) -> dict[str, Any]:
    """Write ``results.json`` whole, with what the results of all protocols share; its content."""
    content = {
        "format": FORMAT,
        "version": 1,
        "protocol": protocol,
        **parts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **package_versions(_PACKAGES)},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_whole(path, f"{text}\n")
    as_read: dict[str, Any] = json.loads(text)
    return as_read


def read_result(path: Path) -> dict[str, Any]:
    """The content of a ``results.json``, or of the one in a folder; ValueError if it is none of this program."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read ({error.strerror}): give a {FILE_NAME} or its folder{near_name(file)}"
        ) from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{file} is not a result of sslight evaluate: give a {FILE_NAME} or its folder.")
    return content


def result_files(folder: Path) -> list[Path]:
    """The results in a folder and in ``evaluation`` below it, where those of a run are."""
    return [*sorted(folder.glob(FILE_NAME)), *sorted(folder.glob(f"evaluation/*/{FILE_NAME}"))]


def write_ranks(folder: Path, ranks: Tensor, names: Iterable[str]) -> None:
    """Keep ``ranks [N, 2]`` (see :func:`label_ranks`), with the fingerprint of the N images' names in this order."""
    small = torch.int16 if not len(ranks) or int(ranks.max()) < 1 << 15 else torch.int32
    write_tensors(folder / _RANKS, {"ranks": ranks.to(small)}, _names_digest(names))


def write_scores(folder: Path, scores: Tensor, targets: Tensor, names: Iterable[str]) -> None:
    """Keep ``scores [N, C]`` and ``targets [N, C]`` of 0 and 1 in the same way."""
    tensors = {"scores": scores, "targets": targets.to(torch.uint8)}
    write_tensors(folder / _SCORES, tensors, _names_digest(names))


def _names_digest(names: Iterable[str]) -> dict[str, str]:
    return {"names_sha256": hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all; the host waits for the device."""
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with whole_file(path, "wb") as file:
        file.write(safetensors.torch.save(on_cpu, metadata))


def read_ranks(folder: Path) -> tuple[str, Tensor] | None:
    """The fingerprint of the names and the ranks of :func:`write_ranks`; None where there are none."""
    found = _read_tensors(folder / _RANKS, "ranks")
    return None if found is None else (found[0], found[1][0])


def read_scores(folder: Path) -> tuple[str, Tensor, Tensor] | None:
    """The fingerprint of the names, scores and targets of :func:`write_scores`; None where there are none."""
    found = _read_tensors(folder / _SCORES, "scores", "targets")
    return None if found is None else (found[0], found[1][0], found[1][1])


def _read_tensors(path: Path, *names: str) -> tuple[str, list[Tensor]] | None:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata()["names_sha256"], [file.get_tensor(name) for name in names]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None


def _without_classes(accuracy: Accuracy) -> dict[str, Any]:
    values = asdict(accuracy)
    del values["per_class"]
    return values
