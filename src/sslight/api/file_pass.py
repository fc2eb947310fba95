"""Images through any file that this program writes, whole: opened once, kept part by part until a result is there."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from glob import escape
from pathlib import Path

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
    files_fingerprint,
    image_batches,
    no_readable_image,
    write_bad_images,
)
from sslight.evaluate.features.extract import EvalTransform, Extraction, features_of
from sslight.evaluate.model import choose_image_size, load_model
from sslight.export.formats.runtimes import RUNTIMES
from sslight.export.network import as_input
from sslight.files import check_new, wait_for, whole_file
from sslight.finetuning.classifier_file import CLASSIFIER_FILE, is_classifier_file, open_classifier
from sslight.train import weights_in
from sslight.train.machine.devices import ONLY_ONE, Share
from sslight.train.record.progress import Progress

_PART = 4096  # images in a part of an interrupted command that is not computed again


@dataclass(frozen=True)
class OpenedFile:
    """A file that is ready to compute: bytes ``[B, 3, S, S]`` → features, and logits if there are classes."""

    name: str
    fingerprint: str
    run: Callable[[Tensor], Sequence[Tensor]]
    image_size: int
    resize: int | None
    device: str = "cpu"
    classes: tuple[str, ...] = ()
    multi_label: bool = False


def open_file(
    checkpoint: str | Path, *, network: str = "student", image_size: int | None = None, devices: str = "auto"
) -> OpenedFile:
    if network not in ("student", "teacher") or devices not in ("auto", "cpu", "gpu"):
        raise ValueError(
            f"network={network} devices={devices}: network is student or teacher, and devices is auto, cpu or gpu."
        )
    path = Path(checkpoint).expanduser()
    path = path / CLASSIFIER_FILE if (path / CLASSIFIER_FILE).is_file() else path
    is_for_devices = path.suffix.lower() in RUNTIMES
    if network != "student" and (is_for_devices or is_classifier_file(path)):
        raise ValueError(f"network={network}: {path} holds one network: leave network out.")
    on_gpu = torch.cuda.is_available() and devices != "cpu"
    if devices == "gpu" and (is_for_devices or not on_gpu):
        why = f"{path} runs on the CPU" if is_for_devices else "this machine has no GPU that PyTorch can use"
        raise ValueError(f"devices=gpu, but {why}: leave devices out.")
    if is_for_devices:
        return _open_for_device(path, image_size)
    device = "cuda" if on_gpu else "cpu"
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

    return OpenedFile(str(checkpoint), f"{weights_fingerprint(whole)} {info.mean} {info.std}", run, *about)


def _open_for_device(path: Path, image_size: int | None) -> OpenedFile:
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a file that `sslight export` wrote.")
    runner_of, package = RUNTIMES[path.suffix.lower()]
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

    return OpenedFile(
        str(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        run,
        size,
        resize,
        classes=classes,
        multi_label=bool(facts["sslight"].get("multi_label", False)),
    )


def listing_of(result: Path) -> Path:
    """Where the unreadable images of a result are listed; results that differ in their suffix have their own."""
    return result.with_name(f"{result.name}.bad_images.csv")


def new_result(output: str | Path | None, suffixes: Sequence[str]) -> Path | None:
    """Where a result is to be written.

    Raises ValueError if the name ends in none of ``suffixes``, or a file is there, or one that is no listing of
    unreadable images in that one's place.
    """
    if output is None:
        return None
    path = Path(output).expanduser()
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"output={path} must end in {' or '.join(suffixes)}: name such a file.")
    check_new(path, "output")
    listing = listing_of(path)
    if listing.exists() and not listing.read_text("utf-8", errors="replace").startswith("index,name,reason,count"):
        raise ValueError(f"output={path}: unreadable images are listed in {listing}, which exists: name another file.")
    return path


def images_at(images: str | Path | Sequence[str | Path], tar_image: str | None) -> Source:
    paths = [images] if isinstance(images, str | Path) else list(images)
    if any(not isinstance(path, str | os.PathLike) for path in paths):
        raise ValueError("images are paths of files or folders, not pixels: those go through sslight.load_backbone.")
    return build_image_source([os.fspath(path) for path in paths], setting="images", tar_image=tar_image)


_Part = tuple[npt.NDArray[np.int64], list[npt.NDArray[np.float32]], list[BadImage]]


@dataclass(frozen=True)
class Passed:
    """What a file computed of images: a tensor ``[N, D]`` for each output asked for, and where its rows come from."""

    values: tuple[Tensor, ...]
    names: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    """Indices ``[N]`` of the readable images in their source."""

    unreadable: tuple[BadImage, ...]


@dataclass(frozen=True)
class FilePass:
    """All images of a source through a file, of which some outputs are wanted (0: features, 1: logits)."""

    opened: OpenedFile
    source: Source
    outputs: tuple[int, ...]
    batch_size: int
    workers: int | None
    share: Share = ONLY_ONE

    def whole(self, result: Path | None) -> Passed:
        """The outputs for all readable images in their order, their names, and the unreadable ones.

        With a ``result`` that is to be written, progress is shown, each part is kept beside it until all are there,
        and unreadable images are listed there. Of several processes with one result each computes every n-th part;
        the first waits for the others and gives all, the others what they computed. It computes itself what
        no process has added to for ten minutes.
        """
        folder = None if result is None else self._folder(result)
        parts = [np.arange(n, min(n + _PART, len(self.source))) for n in range(0, len(self.source), _PART)]
        files = [None if folder is None else folder / f"{part[0]:012}.npz" for part in parts]
        own = range(len(parts)) if folder is None else range(self.share.number, len(parts), self.share.count)
        with Progress(shown=folder is not None) as progress:
            progress.stage("images", sum(len(parts[n]) for n in own), unit="image")
            found = {n: self._kept(files[n], parts[n], progress) for n in own}
            if self.share.number == 0:
                wait_for([file for file in files if file is not None], "part")
                found = {n: found.get(n) or self._kept(files[n], parts[n], progress) for n in range(len(parts))}
        return self._passed(list(found.values()), result)

    def _passed(self, parts: list[_Part], result: Path | None) -> Passed:
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _, _ in parts)])
        bad = [image for _, _, part in parts for image in part]
        if not len(rows) and self.share.number == 0:
            raise ValueError(no_readable_image(bad, setting="images"))
        nothing = [np.zeros((0, 0), np.float32) for _ in self.outputs]
        full = [values for rows, values, _ in parts if len(rows)] or [nothing]
        tensors = tuple(torch.from_numpy(np.concatenate(of_output)) for of_output in zip(*full, strict=True))
        names = tuple(self.source.name(index) for index in rows.tolist())
        finite = torch.stack([values.isfinite().all(dim=1) for values in tensors]).all(0)
        if not finite.all():
            first = names[int(finite.logical_not().nonzero()[0, 0])]
            raise ValueError(
                f"{self.opened.name} gives features that are not finite numbers (first for {first}): try another."
            )
        if result is not None and self.share.number == 0:
            listing_of(result).unlink(missing_ok=True)  # of a result that was here before
            if bad:
                write_bad_images(listing_of(result), bad)
        return Passed(tensors, names, rows, tuple(bad))

    def _folder(self, result: Path) -> Path:
        """Of the parts of this pass; another file, other images or another size have another."""
        folder = result.with_name(f".{result.name}.{self._key}.parts")
        folder.mkdir(exist_ok=True)
        return folder

    @cached_property
    def _key(self) -> str:
        opened = self.opened
        images = data_fingerprint(self.source).sha256, files_fingerprint(self.source)
        key = (opened.fingerprint, opened.image_size, opened.resize, *images, self.outputs)
        return hashlib.sha256(repr(key).encode()).hexdigest()[:16]

    @contextmanager
    def kept(self, result: Path | None) -> Iterator[None]:
        """All parts of this result go at the end of the block; after an error a later call goes on with them."""
        yield
        if result is not None and (self.share.number == 0 or result.exists()):
            for folder in result.parent.glob(f".{escape(result.name)}.*.parts"):
                shutil.rmtree(folder, ignore_errors=True)  # a slow process may still write there

    def _part(self, indices: npt.NDArray[np.int64], progress: Progress) -> _Part:
        bad: list[BadImage] = []
        rows = [indices[:0]]
        values: list[list[npt.NDArray[np.float32]]] = [[] for _ in self.outputs]
        for pixels, _, found in image_batches(
            self.source,
            size=self.opened.image_size,
            resize=self.opened.resize,
            batch_size=self.batch_size,
            workers=self._usual_workers() if self.workers is None else self.workers,
            indices=indices,
            bad=bad,
        ):
            rows.append(found.numpy())
            computed = self.opened.run(pixels)
            for output, batches in zip(self.outputs, values, strict=True):
                batches.append(computed[output].cpu().numpy())
            progress.advance(len(found))
        empty = np.zeros((0, 0), np.float32)
        return np.concatenate(rows), [np.concatenate(batches or [empty]) for batches in values], bad

    def _usual_workers(self) -> int:
        return 0 if self.opened.device == "cpu" else max(1, available_cores() // self.share.local_count)

    def _kept(self, file: Path | None, indices: npt.NDArray[np.int64], progress: Progress) -> _Part:
        if file is None:
            return self._part(indices, progress)
        if file.is_file():
            progress.advance(len(indices))
            with np.load(file) as part:
                values = [part[f"values{output}"] for output in self.outputs]
                return part["rows"], values, [BadImage(**image) for image in json.loads(str(part["bad"]))]
        rows, values, bad = self._part(indices, progress)
        with whole_file(file, "wb") as written:
            listed = json.dumps([asdict(image) for image in bad])
            named = {f"values{output}": array for output, array in zip(self.outputs, values, strict=True)}
            np.savez(written, rows=rows, bad=np.array(listed), **named)  # type: ignore[arg-type]
        return rows, values, bad
