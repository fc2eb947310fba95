"""An evaluation from settings to ``results.json``."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from sslight.backbones import save_backbone, slow_precision, weights_fingerprint
from sslight.config import EvaluateSettings
from sslight.data import ReadLimits, Source, check_readable, data_fingerprint, printable, source_notice
from sslight.evaluate.evaluation import Evaluation, Measurement
from sslight.evaluate.features.cache import check_cache, default_cache
from sslight.evaluate.features.extract import EvalTransform, Extraction, left_out
from sslight.evaluate.model import choose_image_size, load_model
from sslight.evaluate.protocols.knn import measure_knn
from sslight.evaluate.protocols.linear import measure_linear_fast, measure_linear_trained
from sslight.evaluate.protocols.semi import check_head, measure_semi
from sslight.evaluate.results import (
    FILE_NAME,
    EvaluationResult,
    checkpoint_facts,
    named_reasons,
    remark_on,
    result_folder,
    write_ranks,
    write_result,
    write_tensors,
)
from sslight.evaluate.sets import build_sets
from sslight.files import write_whole
from sslight.train import RunFolder
from sslight.train.machine.memory import memory_in_words, peak_memory
from sslight.train.record.progress import Progress

_LIGHTER = "try, in this order, a smaller feature_batch_size, a smaller image_size, fewer workers."


def run_evaluation(
    settings: EvaluateSettings, *, fabric: Fabric, workers: int, show_progress: bool = True
) -> EvaluationResult | None:
    """Run one protocol and write its result.

    All processes call this, with a launched Fabric; the first one returns the result, the others None. Where something
    is trained, a second start goes on from the last checkpoint of an interrupted one; with the result, checkpoints are
    removed. ``workers`` processes decode images, 0 for none. ValueError if an input is wrong; except for images and
    weights that turn out to be broken, nothing was computed or written then.
    """
    started = time.perf_counter()
    evaluation = prepare(settings, fabric=fabric, workers=workers, show_progress=show_progress)
    for setting, source in (("data.train", evaluation.sets.train), ("data.val", evaluation.sets.val)):
        evaluation.progress.say(f"{setting}: {source_notice(source)}")
    sets = evaluation.sets
    for note in sets.notes:
        evaluation.progress.say(note)
    identity = {
        "checkpoint": checkpoint_facts(settings, evaluation.model),
        "data": {
            "train": described(settings.data.train, sets.train, len(sets.classes)),
            "val": described(settings.data.val, sets.val, len(sets.classes)),
        },
    }
    folder = result_folder(settings, settings.protocol, identity)
    if (remark := remark_on(folder)) is not None:
        evaluation.progress.say(remark)
    evaluation = replace(evaluation, run=RunFolder(folder))
    if settings.trains:
        evaluation.run.check(settings)
        fabric.barrier()  # before the first process writes there
    with _folder_for_results(folder):
        with memory_in_words(fabric.device, lambda: f"evaluate {settings.protocol}", lambda: _LIGHTER):
            measured = _measure(evaluation)
        if measured is None:
            return None
        try:
            write_ranks(folder, measured.ranks, map(sets.val.name, measured.rows.tolist()))
            result = write_result(
                folder / FILE_NAME,
                measured,
                notes=[*sets.notes, *measured.notes],
                **identity,
                settings=settings.model_dump(mode="json", exclude={"knn", "linear", "semi"} - {settings.protocol}),
                transform=asdict(evaluation.transform),
                unreadable=named_reasons(left_out(sets.val, measured.rows.numpy(), evaluation.how)),
                seconds=round(time.perf_counter() - started, 1),
                peak_memory_mib=peak_memory(fabric.device),
            )
        except OSError:
            evaluation.progress.say(f"the result cannot be written; it is {measured.accuracy}, {measured.details}")
            raise
        _write_what_belongs_to_it(evaluation, measured, folder)
        shutil.rmtree(evaluation.run.checkpoints, ignore_errors=True)
    return result


@contextmanager
def _folder_for_results(folder: Path) -> Iterator[None]:
    """Make the folder before the work (or ValueError), that no result is lost for it; a failure leaves no empty one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output={folder} cannot be written ({error.strerror}): choose another folder.") from None
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _write_what_belongs_to_it(evaluation: Evaluation, measured: Measurement, folder: Path) -> None:
    """What was trained, and the names of the training images if they are a part of a set."""
    if measured.tensors:
        facts = {"sslight": json.dumps(_classifier_facts(evaluation, measured))}
        write_tensors(folder / "classifier.safetensors", measured.tensors, facts)
    if measured.fine_tuned is not None:
        notes = {"source": f"fine-tuned with labels of {len(evaluation.sets.train)} images"}
        info = replace(evaluation.model.info, notes=notes)
        save_backbone(measured.fine_tuned, folder / "backbone.safetensors", **info.to_build())
    if evaluation.settings.data.subset is not None:
        train = evaluation.sets.train
        write_whole(
            folder / "train_subset.txt", "".join(f"{printable(train.name(index))}\n" for index in range(len(train)))
        )


def _classifier_facts(evaluation: Evaluation, measured: Measurement) -> dict[str, Any]:
    """What ``sslight export`` must know to put the classifier behind its backbone again."""
    return {
        "protocol": measured.protocol,
        "classes": list(evaluation.sets.classes),
        "last_blocks": measured.details.get("last_blocks"),
        "image_size": evaluation.transform.image_size,
        "resize": evaluation.transform.resize,
        "weights_sha256": weights_fingerprint(evaluation.model.backbone),
    }


def prepare(settings: EvaluateSettings, *, fabric: Fabric, workers: int, show_progress: bool) -> Evaluation:
    """Whatever can be refused is refused here, the cheapest first; nothing is computed or written."""
    sets = build_sets(settings)
    if settings.output is not None and (settings.output / FILE_NAME).exists():
        raise ValueError(f"output={settings.output} already holds {FILE_NAME}: choose another folder.")
    model = load_model(settings.model, network=settings.network, seed=settings.seed)
    size = choose_image_size(model, settings.image_size, sets.train)
    if settings.resize is not None and settings.resize < size:
        raise ValueError(f"resize={settings.resize} is smaller than the image size {size}: resize to at least that.")
    evaluation = Evaluation(
        settings=settings,
        model=model,
        sets=sets,
        transform=EvalTransform(size, model.info.mean, model.info.std, settings.resize),
        how=Extraction(
            fabric.device,
            settings.feature_batch_size,
            workers,
            settings.precision,
            ReadLimits(settings.data.max_pixels, settings.data.read_timeout),
        ),
        cache=(settings.cache or default_cache()).expanduser(),
        run=RunFolder(Path()),  # known when the sets are
        fabric=fabric,
        progress=Progress(shown=show_progress and fabric.is_global_zero),
    )
    if model.untrained and size < model.info.image_size and settings.image_size is None:
        usual = model.info.image_size
        own = f"the images are small, so they are measured at {size} px, not at the network's {usual} (image_size)."
        sets.notes.append(own)
    if settings.protocol == "semi":
        check_head(evaluation)
    else:
        check_cache(evaluation.cache)
    for setting, source in (("data.train", sets.train), ("data.val", sets.val)):
        check_readable(source, setting=setting, limits=evaluation.how.limits)
    model.backbone.to(fabric.device)
    if not settings.trains and (warning := slow_precision(settings.precision, fabric.device)) is not None:
        evaluation.progress.say(warning)
    return evaluation


def _measure(evaluation: Evaluation) -> Measurement | None:
    match evaluation.settings.protocol:
        case "knn":
            return measure_knn(evaluation)
        case "linear":
            fast = evaluation.settings.linear.mode == "fast"
            return measure_linear_fast(evaluation) if fast else measure_linear_trained(evaluation)
        case "semi":
            return measure_semi(evaluation)


def described(paths: list[str], source: Source, num_classes: int) -> dict[str, Any]:
    return {
        "paths": paths,
        "num_images": len(source),
        "num_classes": num_classes,
        "sha256": data_fingerprint(source).sha256,
    }
