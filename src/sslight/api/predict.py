"""``sslight predict`` and ``sslight embed`` as Python functions: images through any file that this program writes."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslight.api.file_pass import FilePass, OpenedFile, Passed, images_at, new_result, open_file
from sslight.config import EmbedSettings, PredictSettings
from sslight.data import BadImage, printable
from sslight.evaluate.classifiers.knn import nearest_neighbors
from sslight.files import whole_file
from sslight.train.machine.devices import ONLY_ONE, Share, own_share


@dataclass(frozen=True)
class Neighbors:
    """The K images most alike to each of N images among the others, the most alike first.

    Attributes:
        rows: ``[N, K]`` int64, their rows.
        similarities: ``[N, K]`` float32, cosines of the features.
    """

    rows: Tensor
    similarities: Tensor


@dataclass(frozen=True)
class Embeddings:
    """Features of images, row by row.

    Attributes:
        features: ``[N, D]`` float32, on the CPU (``.numpy()`` gives an array without a copy).
        names: The N images: paths relative to the folder that was given, or image files' paths as given.
        unreadable: The images that are left out, with the reason for each.
        neighbors: Of each image the others most alike, if asked for.
    """

    features: Tensor
    names: tuple[str, ...]
    unreadable: tuple[BadImage, ...]
    neighbors: Neighbors | None = None

    def to_pandas(self) -> Any:
        """A DataFrame with a column per feature, indexed by name. Needs pandas."""
        return import_module("pandas").DataFrame(self.features.numpy(), index=list(self.names))


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of images, row by row.

    Attributes:
        probabilities: ``[N, C]`` float32; of labels that do not exclude each other each between 0 and 1.
        classes: Names of the C classes.
        labels: Of each image its class, or the labels with a probability of at least a half, joined by ``;``.
        names, unreadable, neighbors: As of :class:`Embeddings`.
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    unreadable: tuple[BadImage, ...]
    neighbors: Neighbors | None = None

    def to_pandas(self) -> Any:
        """A DataFrame with a column of labels and one of probabilities per class, indexed by name. Needs pandas."""
        frame = import_module("pandas").DataFrame(self.probabilities.numpy(), list(self.names), list(self.classes))
        frame.insert(0, "label", self.labels, allow_duplicates=True)  # a class may be called so, too
        return frame


def embed(
    images: str | Path | Sequence[str | Path],
    checkpoint: str | Path,
    *,
    output: str | Path | None = None,
    network: str = "student",
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    devices: str = "auto",
    tar_image: str | None = None,
    neighbors: int | None = None,
) -> Embeddings:
    """Features of images, as the kNN protocol sees them: center view, normalized as in pre-training.

    ``embed("images", "runs/first/backbone.safetensors").features``

    Args:
        images: A folder, an H5 file, tar shards, ``synthetic:N``, an image file, or a list of such paths (image
            files, or sets of images). No labels are read.
        checkpoint: A run folder, an export (also ONNX, LiteRT or ExecuTorch), a classifier, a checkpoint of this
            program or of the original, or ``timm:NAME[@FILE]``.
        output: A new ``.npz``, ``.csv`` or ``.parquet`` file to write; what an interrupted call has computed is not
            computed again, and unreadable images are listed beside it. Of several processes that torchrun or srun
            started, each computes and returns a share; the first one returns and writes all.
        network: Which network of a checkpoint: ``student`` or ``teacher``.
        image_size: Side in px of the center view; None takes that of the file.
        batch_size: Images that pass through the network at once; without influence on the result beyond rounding.
        workers: Processes that decode; None takes none on a CPU, else the cores of this machine.
        devices: ``auto`` (a GPU if there is one), ``cpu`` or ``gpu``. Files for devices run on the CPU.
        tar_image: Which image of a sample of several in tar shards, as ``data.tar_image``.
        neighbors: So many of the other images, those most alike, are named for each image; None for none.

    Raises:
        ValueError: a path or the checkpoint is wrong, no image can be read, features are not finite, or there are not
            so many neighbors.
    """
    output = new_result(output, EmbedSettings.suffixes)
    if output is not None and output.suffix.lower() == ".parquet":
        _parquet()
    source = images_at(images, tar_image)
    _check_neighbors(neighbors, len(source))
    share = _share(output)
    opened = open_file(checkpoint, network=network, image_size=image_size, devices=devices)
    through = FilePass(opened, source, (0,), batch_size, workers, share)
    with through.kept(output):
        passed = through.whole(output)
        features = passed.values[0]
        if through.share.number:  # the first process writes the result
            return Embeddings(features, passed.names, passed.unreadable)
        found = Embeddings(features, passed.names, passed.unreadable, _most_alike(features, neighbors))
        if output is not None:
            _write_features(output, found)
    return found


def predict(
    images: str | Path | Sequence[str | Path],
    classifier: str | Path,
    *,
    output: str | Path | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    devices: str = "auto",
    tar_image: str | None = None,
    neighbors: int | None = None,
) -> Predictions:
    """The classes of images.

    ``predict("images", "runs/classifier").labels``

    Args:
        images: As for :func:`embed`, like all that is not listed here.
        classifier: The run folder of :func:`finetune`, its ``classifier.safetensors``, or an export of a classifier
            (``.safetensors``, ``.onnx``, ``.tflite`` or ``.pte``).
        output: A new ``.csv`` file to write; else as for :func:`embed`.

    Raises:
        ValueError: as for :func:`embed`, or the file has no classifier.
    """
    output = new_result(output, PredictSettings.suffixes)
    share = _share(output)
    opened = open_file(classifier, devices=devices)
    if not opened.classes:
        raise ValueError(
            f"{classifier} has no classifier: give the run folder of `sslight finetune`, or a file exported with one."
        )
    num_computed = opened.run(torch.zeros(1, 3, opened.image_size, opened.image_size, dtype=torch.uint8))[1].shape[1]
    if num_computed != len(opened.classes):
        raise ValueError(
            f"{opened.name} names {len(opened.classes)} classes and computes {num_computed}: export it again."
        )
    source = images_at(images, tar_image)
    _check_neighbors(neighbors, len(source))
    outputs = (0, 1) if neighbors else (1,)
    through = FilePass(opened, source, outputs, batch_size, workers, share)
    with through.kept(output):
        passed = through.whole(output)
        near = None if through.share.number else _most_alike(passed.values[0], neighbors)
        found = _predictions(opened, passed, near)
        if output is not None and through.share.number == 0:
            heading = ["name", "class", "probability", *(f"p({name})" for name in opened.classes)]
            rows = (
                [name, label, max(shares), *shares]
                for name, label, shares in zip(found.names, found.labels, found.probabilities.tolist(), strict=True)
            )
            _write_csv(output, heading, rows, found.names, near)
    return found


def _predictions(opened: OpenedFile, passed: Passed, near: Neighbors | None) -> Predictions:
    logits = passed.values[-1]
    if opened.multi_label:
        probabilities = logits.sigmoid()
        labels = [";".join(opened.classes[at] for at in np.flatnonzero(row)) for row in (logits >= 0).numpy()]
    else:
        probabilities = logits.softmax(1)
        labels = [opened.classes[at] for at in logits.argmax(1).tolist()] if len(logits) else []
    return Predictions(probabilities, opened.classes, tuple(labels), passed.names, passed.unreadable, near)


def _share(output: Path | None) -> Share:
    """The part of this process, of those that have a result together, and its GPU."""
    share = ONLY_ONE if output is None else own_share()
    if share.count > 1 and torch.cuda.is_available():
        torch.cuda.set_device(share.local_number % torch.cuda.device_count())
    return share


def _check_neighbors(neighbors: int | None, num_images: int) -> None:
    if neighbors is not None and not 1 <= neighbors < num_images:
        raise ValueError(
            f"neighbors={neighbors} is not possible with the number of images, {num_images:,}: choose 1 to "
            f"{num_images - 1:,}, or leave it out."
        )


def _most_alike(features: Tensor, neighbors: int | None) -> Neighbors | None:
    if neighbors is None:
        return None
    _check_neighbors(neighbors, len(features))  # of those that can be read
    similarities, rows = nearest_neighbors(features, features, k=neighbors, leave_one_out=True)
    return Neighbors(rows, similarities)


def _write_features(path: Path, found: Embeddings) -> None:
    features, near = found.features.numpy(), found.neighbors
    match path.suffix.lower():
        case ".npz":
            names = np.array(found.names)
            more = {} if near is None else {"neighbors": names[near.rows], "similarities": near.similarities.numpy()}
            with whole_file(path, "wb") as file:
                np.savez(file, names=names, features=features, **more)
        case ".parquet":
            arrow, parquet = _parquet()
            written = list(map(printable, found.names))  # Parquet takes UTF-8 alone
            columns: dict[str, list[Any]] = {"name": written, "features": list(features)}
            if near is not None:
                columns["neighbors"] = [[written[row] for row in rows] for rows in near.rows.tolist()]
                columns["similarities"] = list(near.similarities.numpy())
            with whole_file(path, "wb") as file:
                parquet.write_table(arrow.table(columns), file)
        case _:
            heading = ["name", *(f"f{number}" for number in range(features.shape[1]))]
            rows = ([name, *row] for name, row in zip(found.names, features.tolist(), strict=True))
            _write_csv(path, heading, rows, found.names, near)


def _write_csv(
    path: Path,
    heading: list[str],
    rows: Iterable[list[str | float]],
    names: Sequence[str] = (),
    near: Neighbors | None = None,
) -> None:
    """With neighbors, columns ``neighbor1``, ``similarity1`` and so on follow."""
    if near is not None:
        numbers = range(1, near.rows.shape[1] + 1)
        heading = heading + [f"{word}{number}" for number in numbers for word in ("neighbor", "similarity")]
        others = ([names[at] for at in row] for row in near.rows.tolist())
        columns = map(_in_turn, others, near.similarities.tolist())
        rows = ([*row, *more] for row, more in zip(rows, columns, strict=True))
    with whole_file(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(printable, heading))
        for row in rows:
            writer.writerow([f"{field:.7g}" if isinstance(field, float) else printable(field) for field in row])


def _in_turn(names: Sequence[str], cosines: Sequence[float]) -> list[str | float]:
    return [field for pair in zip(names, cosines, strict=True) for field in pair]


def _parquet() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError("a .parquet file needs pyarrow, which is not installed: pip install pyarrow.") from None
