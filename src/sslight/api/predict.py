"""``sslight predict`` and ``sslight embed`` as Python functions: images through any file that this program writes."""

import csv
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.backbones import weights_fingerprint
from sslight.data import (
    BadImage,
    Source,
    available_cores,
    build_image_source,
    data_fingerprint,
    image_batches,
    no_readable_image,
    printable,
    write_bad_images,
)
from sslight.evaluate.features.extract import EvalTransform, Extraction, features_of
from sslight.evaluate.model import choose_image_size, load_model
from sslight.export.litert_file import LiteRTRunner
from sslight.export.network import as_input
from sslight.export.onnx_file import OnnxRunner
from sslight.files import check_new, whole_file
from sslight.finetuning.classifier_file import CLASSIFIER_FILE, is_classifier_file, open_classifier
from sslight.train import weights_in
from sslight.train.progress import Progress

_PART = 4096  # images in a part of an interrupted command that is not computed again


@dataclass(frozen=True)
class Embeddings:
    """Features of images, row by row.

    Attributes:
        features: ``[N, D]`` float32, on the CPU (``.numpy()`` gives an array without a copy).
        names: The N images: paths relative to the folder that was given, or image files' paths as given.
        unreadable: The images that are left out, with the reason for each.
    """

    features: Tensor
    names: tuple[str, ...]
    unreadable: tuple[BadImage, ...]


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of images, row by row.

    Attributes:
        probabilities: ``[N, C]`` float32; of labels that do not exclude each other each between 0 and 1.
        classes: Names of the C classes.
        labels: Of each image its class, or the labels with a probability of at least a half, joined by ``;``.
        names, unreadable: As of :class:`Embeddings`.
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    unreadable: tuple[BadImage, ...]


def embed(
    images: str | Path | Sequence[str | Path],
    checkpoint: str | Path,
    *,
    output: Path | None = None,
    network: str = "student",
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | None = None,
    tar_image: str | None = None,
) -> Embeddings:
    """Features of images, as the kNN protocol sees them: center view, normalised as in pre-training.

    ``embed("images", "runs/first/backbone.safetensors").features``

    Args:
        images: A folder, an H5 file, tar shards, ``synthetic:N``, an image file, or a list of such paths (image
            files, or sets of images). No labels are read.
        checkpoint: A run folder, an export (also ONNX or LiteRT), a classifier, a checkpoint of this program or of the
            original, or ``timm:NAME[@FILE]``.
        output: A new ``.npz``, ``.csv`` or ``.parquet`` file to write; what an interrupted call has computed is not
            computed again, and unreadable images are listed beside it.
        network: Which network of a checkpoint: ``student`` or ``teacher``.
        image_size: Side in px of the center view; None takes that of the file.
        batch_size: Images that pass through the network at once; without influence on the result beyond rounding.
        workers: Processes that decode; None takes none on a CPU, else the cores of this machine.
        device: ``cpu`` or ``cuda``; None takes a GPU if there is one. ONNX and LiteRT files compute on the CPU.
        tar_image: Which image of a sample of several in tar shards, as ``data.tar_image``.

    Raises:
        ValueError: a path or the checkpoint is wrong, no image can be read, or features are not finite.
    """
    if output is not None:
        check_new(output, "output")
        if output.suffix.lower() == ".parquet":
            _parquet()
    source = _source(images, tar_image)
    opened = _open(checkpoint, network=network, image_size=image_size, device=device)
    through = _Pass(opened, source, 0, batch_size, workers)
    found = Embeddings(*through.whole(output))
    if output is not None:
        _write_features(output, found)
        through.forget(output)
    return found


def predict(
    images: str | Path | Sequence[str | Path],
    classifier: str | Path,
    *,
    output: Path | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | None = None,
    tar_image: str | None = None,
) -> Predictions:
    """The classes of images.

    ``predict("images", "runs/classifier").labels``

    Args:
        images, batch_size, workers, device, tar_image: As for :func:`embed`.
        classifier: The run folder of :func:`finetune`, its ``classifier.safetensors``, or an export of a classifier
            (``.safetensors``, ``.onnx`` or ``.tflite``).
        output: A new ``.csv`` file to write; else as for :func:`embed`.

    Raises:
        ValueError: as for :func:`embed`, or the file has no classifier.
    """
    if output is not None:
        check_new(output, "output")
    opened = _open(classifier, device=device)
    if not opened.classes:
        raise ValueError(
            f"{classifier} has no classifier: give the run folder of `sslight finetune`, or a file exported with one."
        )
    through = _Pass(opened, _source(images, tar_image), 1, batch_size, workers)
    logits, names, unreadable = through.whole(output)
    if logits.shape[1] != len(opened.classes):
        raise ValueError(
            f"{classifier} names {len(opened.classes)} classes and computes {logits.shape[1]}: export it again."
        )
    if opened.multi_label:
        probabilities = logits.sigmoid()
        labels = [";".join(opened.classes[at] for at in np.flatnonzero(row)) for row in (logits >= 0).numpy()]
    else:
        probabilities = logits.softmax(1)
        labels = [opened.classes[at] for at in logits.argmax(1).tolist()]
    if output is not None:
        heading = ["name", "class", "probability", *(f"p({name})" for name in opened.classes)]
        shares = ([max(row), *row] for row in probabilities.tolist())
        _write_csv(output, heading, ([*row[:2], *row[2]] for row in zip(names, labels, shares, strict=True)))
        through.forget(output)
    return Predictions(probabilities, opened.classes, tuple(labels), names, unreadable)


def _write_features(path: Path, found: Embeddings) -> None:
    features = found.features.numpy()
    match path.suffix.lower():
        case ".npz":
            with whole_file(path, "wb") as file:
                np.savez(file, names=np.array(found.names), features=features)
        case ".parquet":
            arrow, parquet = _parquet()
            with whole_file(path, "wb") as file:
                parquet.write_table(arrow.table({"name": list(found.names), "features": list(features)}), file)
        case _:
            heading = ["name", *(f"f{number}" for number in range(features.shape[1]))]
            _write_csv(path, heading, ([name, *row] for name, row in zip(found.names, features.tolist(), strict=True)))


def _write_csv(path: Path, heading: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    with whole_file(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in (heading, *rows):
            writer.writerow([f"{field:.7g}" if isinstance(field, float) else printable(field) for field in row])


def _parquet() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError("a .parquet file needs pyarrow, which is not installed: pip install pyarrow.") from None


# ---- Files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Opened:
    """A file that is ready to compute: bytes ``[B, 3, S, S]`` → features, and logits if there are classes."""

    name: str
    fingerprint: str
    run: Callable[[Tensor], Sequence[Tensor]]
    image_size: int
    resize: int | None
    device: str = "cpu"
    classes: tuple[str, ...] = ()
    multi_label: bool = False


def _open(
    checkpoint: str | Path, *, network: str = "student", image_size: int | None = None, device: str | None = None
) -> _Opened:
    path = Path(checkpoint).expanduser()
    path = path / CLASSIFIER_FILE if (path / CLASSIFIER_FILE).is_file() else path
    is_for_devices = path.suffix.lower() in _RUNTIMES
    if network != "student" and (is_for_devices or is_classifier_file(path)):
        raise ValueError(f"network={network}: {path} holds one network: leave network out.")
    if device == "cuda" and (is_for_devices or not torch.cuda.is_available()):
        why = f"{path} computes on the CPU" if is_for_devices else "torch finds no GPU on this machine"
        raise ValueError(f"device=cuda: {why}: leave device out.")
    if is_for_devices:
        return _open_for_device(path, image_size)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if is_classifier_file(path):
        file = open_classifier(path)
        info, size = file.info, image_size or file.info.image_size
        layers = [file.classifier.backbone, file.classifier.head]
        about = (size, file.resize if size == info.image_size else None, device, file.classes, file.multi_label)
    else:
        model = load_model(weights_in(os.fspath(checkpoint), whole=network == "teacher"), network=network, seed=0)
        info, layers = model.info, [model.backbone]
        about = (choose_image_size(model, image_size), None, device, (), False)
    whole = nn.Sequential(*layers).to(device).eval()
    transform, how = EvalTransform(info.image_size, info.mean, info.std), Extraction(device)

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        outputs = [features_of(layers[0], images, transform, how)]
        return outputs + [layer(outputs[0]) for layer in layers[1:]]

    return _Opened(str(checkpoint), f"{weights_fingerprint(whole)} {info.mean} {info.std}", run, *about)


_RUNTIMES: dict[str, tuple[type[OnnxRunner | LiteRTRunner], str]] = {
    ".onnx": (OnnxRunner, "onnxruntime"),
    ".tflite": (LiteRTRunner, "ai-edge-litert"),
}
"""Of a suffix: what runs such a file, and the package that it needs."""


def _open_for_device(path: Path, image_size: int | None) -> _Opened:
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a file that `sslight export` wrote.")
    runner_of, package = _RUNTIMES[path.suffix.lower()]
    try:
        runner = runner_of(path, threads=torch.get_num_threads())
    except ImportError:
        raise ValueError(
            f"{path} needs the package {package}, which is not installed: pip install {package}."
        ) from None
    except Exception as error:  # of the runtime, which raises types of its own
        raise ValueError(f"{path} cannot be opened by {package} ({' '.join(str(error).split())[:200]}).") from None
    try:
        facts = runner.facts
        seen, classes = facts["sslight"]["preprocessing"], tuple(map(str, facts.get("classes", ())))
        size, resize = int(seen["centre_crop"]), int(seen["resize_shorter_side"])
        mean, std = (tuple(map(float, seen[name])) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError, AttributeError, OSError, zipfile.BadZipFile):
        raise ValueError(
            f"{path} does not say how images become its input: give a file that `sslight export` wrote."
        ) from None
    if image_size not in (None, size):
        raise ValueError(f"image_size={image_size} is not the {size} px that {path} takes: leave it out.")

    def run(images: Tensor) -> list[Tensor]:
        array = as_input(images, seen["input"], mean=mean, std=std)
        return [torch.from_numpy(part) for part in runner(array)]

    return _Opened(
        str(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        run,
        size,
        resize,
        classes=classes,
        multi_label=bool(facts["sslight"].get("multi_label", False)),
    )


# ---- Images -------------------------------------------------------------------------------------------------


def _source(images: str | Path | Sequence[str | Path], tar_image: str | None) -> Source:
    paths = [images] if isinstance(images, str | Path) else images
    return build_image_source([os.fspath(path) for path in paths], setting="images", tar_image=tar_image)


_Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], list[BadImage]]
_Whole = tuple[Tensor, tuple[str, ...], tuple[BadImage, ...]]


@dataclass(frozen=True)
class _Pass:
    """All images of a source through a file, of which one output is wanted."""

    opened: _Opened
    source: Source
    output: int
    batch_size: int
    workers: int | None

    def whole(self, result: Path | None) -> _Whole:
        """The output for all readable images in their order, their names, and the unreadable ones.

        With a ``result`` that is to be written, progress is shown, each part is kept beside it until all are there,
        and unreadable images are listed there.
        """
        parts: list[_Part] = []
        folder = None if result is None else self._folder(result)
        with Progress(shown=folder is not None) as progress:
            progress.stage("images", len(self.source), unit="image")
            for start in range(0, len(self.source), _PART):
                indices = np.arange(start, min(start + _PART, len(self.source)))
                file = None if folder is None else folder / f"{start:012}.npz"
                parts.append(self._part(indices, progress) if file is None else self._kept(file, indices, progress))
        rows = np.concatenate([rows for rows, _, _ in parts])
        bad = [image for _, _, part in parts for image in part]
        if not len(rows):
            raise ValueError(no_readable_image(bad, setting="images"))
        values = torch.from_numpy(np.concatenate([values for rows, values, _ in parts if len(rows)]))
        names = tuple(self.source.name(index) for index in rows.tolist())
        finite = values.isfinite().all(dim=1)
        if not finite.all():
            first = names[int(finite.logical_not().nonzero()[0, 0])]
            raise ValueError(
                f"{self.opened.name} gives features that are not finite numbers (first for {first}): try another."
            )
        if result is not None and bad:
            write_bad_images(result.with_suffix(".bad_images.csv"), bad)
        return values, names, tuple(bad)

    def _folder(self, result: Path) -> Path:
        """Of the parts of this pass; another file, other images or another size have another."""
        opened = self.opened
        key = (opened.fingerprint, opened.image_size, opened.resize, data_fingerprint(self.source).sha256, self.output)
        folder = result.with_name(f".{result.name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.parts")
        folder.mkdir(exist_ok=True)
        return folder

    def forget(self, result: Path) -> None:
        """Remove the parts, once the result is written."""
        shutil.rmtree(self._folder(result))

    def _part(self, indices: npt.NDArray[np.int64], progress: Progress) -> _Part:
        bad: list[BadImage] = []
        rows, values = [indices[:0]], [np.zeros((0, 0), np.float32)]
        for pixels, _, found in image_batches(
            self.source,
            size=self.opened.image_size,
            resize=self.opened.resize,
            batch_size=self.batch_size,
            workers=(0 if self.opened.device == "cpu" else available_cores()) if self.workers is None else self.workers,
            indices=indices,
            bad=bad,
        ):
            rows.append(found.numpy())
            values.append(self.opened.run(pixels)[self.output].cpu().numpy())
            progress.advance(len(found))
        return np.concatenate(rows), np.concatenate(values[1:] or values), bad

    def _kept(self, file: Path, indices: npt.NDArray[np.int64], progress: Progress) -> _Part:
        if file.is_file():
            progress.advance(len(indices))
            with np.load(file) as part:
                return part["rows"], part["values"], [BadImage(**image) for image in json.loads(str(part["bad"]))]
        rows, values, bad = self._part(indices, progress)
        with whole_file(file, "wb") as written:
            listed = json.dumps([asdict(image) for image in bad])
            np.savez(written, rows=rows, values=values, bad=np.array(listed))
        return rows, values, bad
