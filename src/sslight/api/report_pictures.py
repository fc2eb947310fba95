"""What the page of ``sslight report`` shows of images and networks: views, neighbors, maps, the worst images."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslight.api.views import shown_image
from sslight.backbones import load_backbone, load_backbone_weights, read_backbone_info
from sslight.config import PretrainSettings, ReportSettings
from sslight.data import (
    BadImage,
    ReadLimits,
    Source,
    SubsetSource,
    WorkerFailed,
    build_source,
    build_training_source,
    image_batches,
    printable,
    readable_images,
    source_builder,
)
from sslight.evaluate.classifiers.knn import nearest_neighbors
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features
from sslight.methods import build_method
from sslight.report.run.feature_space import SampledFeatures, drawn_queries, spread_sample, thumbnail
from sslight.report.run.files import Run
from sslight.report.run.page import Pictures, Sheet
from sslight.views import build_multi_crop

_NEIGHBORS = 7
_SHOWN_IMAGES = 3
_WORST_SIDE = 160  # px
_WEIGHTS = ("backbone.safetensors", "checkpoints/last.pt")


def pictures_of(runs: Sequence[Run], page: ReportSettings) -> Pictures:
    """Views, neighbors and features of the runs whose images and networks can be had."""
    sampled, sheets, missing = [], [], []
    by_images: dict[str, list[int]] = {}  # positions of the runs that train on the same images
    for position, run in enumerate(runs):
        if run.pretraining is None:
            if "method" not in run.settings:  # another task, whose page has none of these
                continue
            what = "no views, neighbors or map, because its config.yaml is not of pre-training with this version"
            missing.append(f"{run.name}: {what}.")
            continue
        images = run.pretraining.data.model_dump_json(include={"train", "subset", "subset_seed"})
        by_images.setdefault(images, []).append(position)
        try:
            sampled += _sampled(position, run, run.pretraining, page, with_start=len(runs) == 1)
        except (ValueError, OSError, WorkerFailed) as error:
            missing.append(f"{run.name}: no neighbors and no map: {_sentence(error)}")
    for positions in by_images.values():
        try:
            sheets.append(_sheet(positions, runs, page.seed))
        except (ValueError, OSError, WorkerFailed) as error:
            missing.append(f"{', '.join(runs[at].name for at in positions)}: no views: {_sentence(error)}")
    return Pictures(sheets, sampled, missing)


def worst_images(content: Mapping[str, Any]) -> tuple[dict[str, npt.NDArray[np.uint8]], str | None]:
    """The images that a ``results.json`` names as the worst, as the network saw them; a sentence if any is missing.

    Raises KeyError or TypeError if the result is damaged.
    """
    wanted = {str(one["name"]) for one in content.get("worst_images", [])}
    if not wanted:
        return {}, None
    data, transform, found = content["settings"]["data"], content["transform"], dict[str, npt.NDArray[np.uint8]]()
    try:
        source = build_source(data["val"], labeled=False, setting="data.val", tar_image=data["tar_image"])
        at = {name: index for index in range(len(source)) if (name := printable(source.name(index))) in wanted}
        batches = image_batches(
            source,
            size=transform["image_size"],
            resize=transform["resize"],
            batch_size=16,
            workers=0,
            indices=np.array(sorted(at.values()), np.int64),
            bad=[],
            limits=ReadLimits(data["max_pixels"], data["read_timeout"]),
        )
        for images, _, indices in batches:
            for image, index in zip(images, indices.tolist(), strict=True):
                found[printable(source.name(index))] = thumbnail(image.permute(1, 2, 0).numpy(), side=_WORST_SIDE)
    except (ValueError, OSError, WorkerFailed) as error:
        return {}, f"no pictures of the worst images: {_sentence(error)}"
    missing = len(wanted) - len(found)
    return found, f"{missing} of its {len(wanted)} worst images are not in data.val any more." if missing else None


def _sentence(error: Exception) -> str:
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def _sampled(
    position: int, run: Run, settings: PretrainSettings, page: ReportSettings, *, with_start: bool
) -> list[SampledFeatures]:
    """Features and neighbors before (if asked for) and after training. Raises ValueError without weights or images."""
    weights = next((name for name in _WEIGHTS if (run.path / name).is_file()), None)
    if weights is None:
        raise ValueError("the run has no checkpoint yet")
    source, what = images_of(settings)
    limits = _limits(settings)
    sample = SubsetSource(source, spread_sample(source.labels, len(source), page.images, page.seed))
    info = read_backbone_info(run.path / weights)
    transform, how = EvalTransform(info.image_size, info.mean, info.std), Extraction(batch_size=64, limits=limits)
    networks = {weights: load_backbone(run.path / weights)}
    if with_start:
        networks = _start(settings) | networks
    rows: dict[str, Tensor] = {}
    for name, network in networks.items():
        features, readable = extract_features(network, sample, transform, how)
        kept = np.flatnonzero(readable.numpy())  # the same of each network
        if len(kept) < 2:
            raise ValueError(f"{what} has fewer than two readable images")
        rows[name] = F.normalize(features[kept])
    labels = None if sample.labels is None else sample.labels[kept]
    queries = drawn_queries(labels, len(kept), page.queries, page.seed)
    near = {
        name: nearest_neighbors(found, found, k=min(_NEIGHBORS, len(kept) - 1), leave_one_out=True)
        for name, found in rows.items()
    }
    shown = np.unique(np.concatenate([queries, *(found.numpy()[queries].ravel() for _, found in near.values())]))
    pixels = image_batches(
        sample, size=info.image_size, batch_size=64, workers=0, indices=kept[shown], bad=[], limits=limits
    )
    small = [thumbnail(image.permute(1, 2, 0).numpy()) for images, _, _ in pixels for image in images]
    return [
        SampledFeatures(
            run=position,
            weights=name,
            data=what,
            names=[sample.name(int(index)) for index in kept],
            classes=sample.classes,
            labels=labels,
            features=rows[name].numpy(),
            neighbors=neighbors.numpy(),
            cosines=cosines.numpy(),
            queries=queries,
            thumbnails=dict(zip(shown.tolist(), small, strict=True)),
        )
        for name, (cosines, neighbors) in near.items()
    ]


def _start(settings: PretrainSettings) -> dict[str, nn.Module]:
    """The network before its first step, by its name; none if the weights that it began with are gone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_method(settings).backbone.eval()
    if settings.init_from is None:
        return {"untrained": network}
    try:
        load_backbone_weights(network, settings.init_from, mean=settings.views.mean, std=settings.views.std)
    except (ValueError, OSError):
        return {}
    return {f"init_from={settings.init_from}": network}


def images_of(settings: PretrainSettings) -> tuple[Source, str]:
    """Validation images, or training images if there are none; with labels if they have some."""
    data = settings.data
    paths, setting, labels = (
        (data.val, "data.val", data.val_labels) if data.val else (data.train, "data.train", data.labels)
    )
    build = partial(source_builder(data), paths, setting=setting)
    what = f"{setting}={' '.join(paths)}"
    try:
        return build(labeled=True, labels=labels), what
    except ValueError:
        return build(labeled=False), what


def _limits(settings: PretrainSettings) -> ReadLimits:
    return ReadLimits(settings.data.max_pixels, settings.data.read_timeout)


def _sheet(positions: Sequence[int], runs: Sequence[Run], seed: int) -> Sheet:
    """A few training images with their views; runs with the same views and the same seed share a column."""
    columns: dict[str, list[int]] = {}
    firsts: dict[str, PretrainSettings] = {}
    for position in positions:
        settings = runs[position].pretraining
        assert settings is not None
        key = f"{settings.seed} {settings.views.model_dump_json()}"
        columns.setdefault(key, []).append(position)
        firsts.setdefault(key, settings)
    crops = [(build_multi_crop(settings.views), settings.seed) for settings in firsts.values()]
    first = next(iter(firsts.values()))
    source = build_training_source(first.data, labeled=False)
    bad: list[BadImage] = []
    readable = islice(readable_images(source, seed=seed, bad=bad, limits=_limits(first)), _SHOWN_IMAGES)
    images = [shown_image(source.name(index), index, image, crops) for index, image in readable]
    return Sheet(" ".join(first.data.train), list(columns.values()), images)
