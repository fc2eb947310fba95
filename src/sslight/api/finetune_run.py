"""One fine-tuning, from a start that is ready to its classifier and results."""

import hashlib
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from sslight.backbones import BackboneInfo, adopt_cpu_layers, eval_mode, save_backbone
from sslight.config import BEGINNINGS, FinetuneSettings
from sslight.data import (
    CropLoader,
    DataFingerprint,
    ReadLimits,
    Source,
    SubsetSource,
    check_bad_share,
    data_fingerprint,
    left_out_notes,
    passed_over,
    passed_over_in_words,
)
from sslight.evaluate.classifiers.logistic import fit_logistic_regression
from sslight.evaluate.classifiers.metrics import accuracy_of_ranks, label_answers, largest_confusions
from sslight.evaluate.classifiers.mistakes import (
    average_precision_error,
    mean_average_precision,
    mistakes_of,
    multi_label_result,
)
from sslight.evaluate.evaluation import Measurement
from sslight.evaluate.features.extract import (
    EvalTransform,
    Extraction,
    check_images,
    extract_features,
    feature_batches,
    left_out,
)
from sslight.evaluate.results import FILE_NAME, named_reasons, write_content, write_ranks, write_result, write_scores
from sslight.evaluate.run import described
from sslight.evaluate.sets import LabeledSets, class_counts
from sslight.finetuning.classifier import Classifier
from sslight.finetuning.classifier_file import CLASSIFIER_FILE, classifier_notes, save_classifier
from sslight.finetuning.selection import SelectedClassifier
from sslight.finetuning.task import build_fine_tuning_task, class_weights, mean_cross_entropy
from sslight.intervals import standard_error
from sslight.optim import classification_groups, cosine_schedule, set_rates
from sslight.train import RunFolder, RunOptions, train
from sslight.train.machine.distributed import gathered, own_share, sum_over_processes
from sslight.train.record.progress import Progress

_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS, _BATCH = 1500, 10, 100, 64
_IMBALANCED, _MOST_FITTED = 3, 50_000


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned classifier: its file, ``results.json``, and what that holds."""

    output: Path
    classifier: Path
    path: Path
    content: dict[str, Any]


@dataclass(frozen=True)
class Finetuning:
    """One fine-tuning that is ready to run."""

    settings: FinetuneSettings
    sets: LabeledSets
    backbone: nn.Module
    info: BackboneInfo
    origin: dict[str, Any]  # what is known of the backbone before it is trained
    transform: EvalTransform
    trained: npt.NDArray[np.int64]  # positions in data.train
    held_out: npt.NDArray[np.int64]
    fabric: Fabric
    workers: int
    limits: ReadLimits

    @property
    def multi_label(self) -> bool:
        return self.sets.train_labels.ndim == 2

    def check_images(self) -> None:
        """Refuse sets of which the run would end for unreadable images; a handful is left out and said."""
        sets, max_share = self.sets, self.settings.data.max_bad_share
        held_out = SubsetSource(sets.train, self.held_out)
        progress = Progress(shown=self.fabric.is_global_zero)
        for source, what in ((held_out, "the held-out part of data.train"), (sets.val, "data.val")):
            if len(source):
                sets.notes.extend(
                    left_out_notes(check_images(source, what, self._how(), max_share, progress), len(source), what)
                )

    def train(self, run: RunFolder) -> tuple[SelectedClassifier, dict[str, Any]]:
        """Train, or go on; what was trained, and what was decided on the way."""
        settings, sets, fabric = self.settings, self.sets, self.fabric
        classifier = Classifier(self.backbone, len(sets.classes), seed=settings.seed)
        targets = torch.from_numpy(sets.train_labels[self.trained])
        weights = class_weights(targets, len(sets.classes)).to(fabric.device) if settings.balance else None
        if settings.head_init == "regression" and not run.continues:
            self._fit_new_layer(classifier, targets, weights)
        if fabric.device.type == "cpu":
            adopt_cpu_layers(classifier)
        module = SelectedClassifier(classifier, scored=len(self.held_out) > 0)
        number, least = len(self.trained), 2 * fabric.world_size  # batch norm needs two images in each process
        batch_size = max(least, settings.batch_size or min(_BATCH, number // 8))
        per_epoch = max(1, number // batch_size)
        epochs = settings.epochs or min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, round(_STEPS / per_epoch)))
        loader = CropLoader(
            SubsetSource(sets.train, self.trained),
            size=self.transform.image_size,
            scale=settings.crop_scale,
            batch_size=batch_size,
            smallest_step=batch_size,  # the rest of an epoch may be two images, which spoil the norms' statistics
            seed=settings.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=self.workers,
            max_bad_share=settings.data.max_bad_share,
            limits=self.limits,
        )
        groups = classification_groups(classifier.backbone, classifier.head, head_lr_factor=settings.head_lr_factor)
        optimizer = torch.optim.AdamW(groups, lr=0.0)
        total = epochs * loader.steps_per_epoch
        assert settings.lr is not None  # chosen by now
        rate = partial(cosine_schedule, base=settings.lr, final=0.0, total_steps=total, warmup_steps=total // 20)
        task = build_fine_tuning_task(
            module,
            loader,
            fabric,
            targets=targets,
            criterion=partial(mean_cross_entropy, weights=weights, label_smoothing=settings.label_smoothing),
            optimizer=optimizer,
            set_rate=lambda step: set_rates(optimizer, lr=rate(step), weight_decay=settings.weight_decay),
            mean=self.transform.mean,
            std=self.transform.std,
            epochs=epochs,
            batch_size=batch_size,
            frozen_norms_of=classifier.backbone if settings.freeze_norms else None,
            measure=(lambda final: self._score(module)) if len(self.held_out) else None,
            measure_every=max(1, epochs // 25),
            remedy=lambda newest: f"start again with a lower lr (it was {settings.lr:g}).",
        )
        said = [f"fine-tuning on {number:,} images, {len(self.held_out):,} held out to choose the epoch"]
        said += [f"lr {settings.lr:g}" + (", batch norms frozen" if settings.freeze_norms else "")]
        said += [f"{len(sets.classes)} labels, several an image"] if self.multi_label else []
        said += filter(None, [passed_over_in_words(passed_over(sets.train)), *self._notes()])
        options = RunOptions(
            settings=settings,
            **settings.checkpoint.model_dump(),
            placement="; ".join(part.removesuffix(".") for part in said),
            beginning=BEGINNINGS[settings.head_init or "random"],
            data={"data.train": _fingerprint(sets.train, sets.classes, sets.train_labels)},
        )
        with closing(loader):
            found = train(task, fabric=fabric, loader=loader, run=run, options=options)
        self._note_unreadable({image.index for images in gathered(loader.bad_images) for image in images})
        details: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": settings.lr, "steps": total}
        details |= {"head_init": settings.head_init, "freeze_norms": settings.freeze_norms}
        if found.measurements:
            name = "holdout_map" if self.multi_label else "holdout_top1"
            kept = found.measurements[int(module.noted[1])]
            chosen_epoch = round(kept["step"] / loader.steps_per_epoch)
            best = max(float(measured[name]) for measured in found.measurements)
            details |= {"chosen_epoch": chosen_epoch, name: kept[name], "num_held_out": len(self.held_out)}
            details["best_" + name] = best
        return module, details

    def _note_unreadable(self, positions: set[int]) -> None:
        """Tell which training images were unreadable, and replaced by others."""
        labels, number = self.sets.train_labels[self.trained], len(self.sets.classes)
        before, after = class_counts(labels, number), class_counts(np.delete(labels, sorted(positions), 0), number)
        self.sets.notes.extend(left_out_notes(len(positions), len(labels), "the training part of data.train"))
        lost = [name for name, had, has in zip(self.sets.classes, before, after, strict=True) if had and not has]
        if lost:
            names = ", ".join(lost)
            self.sets.notes.append(f"classes without a readable training image, which were not learned: {names}.")

    def _fit_new_layer(self, classifier: Classifier, targets: Tensor, weights: Tensor | None) -> None:
        """Let the new layer start as logistic regression on features of the backbone (Kumar et al., ICLR 2022)."""
        device, layer = self.fabric.device, classifier.head[0]
        assert isinstance(layer, nn.Linear)
        seed = self.settings.seed
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.trained))[:_MOST_FITTED])
        source = SubsetSource(self.sets.train, self.trained[chosen])
        progress = Progress(shown=self.fabric.is_global_zero)
        with progress:
            progress.stage("features of data.train", len(own_share(chosen)), unit="image")
            features, readable = extract_features(
                classifier.backbone.to(device), source, self.transform, self._how(), progress=progress.advance
            )
        bad = left_out(source, readable.nonzero()[:, 0].cpu().numpy(), self._how())
        check_bad_share(len(bad), len(source), "data.train", self.settings.data.max_bad_share, bad)
        progress.say(f"fitting logistic regressions to {len(source) - len(bad):,} images")
        labels = targets[torch.from_numpy(chosen)].to(device)[readable]
        fitted = fit_logistic_regression(
            features[readable], labels, num_classes=len(self.sets.classes), seed=seed, weights=weights
        )
        fitted.fill(layer.to(device))

    def finish(self, run: RunFolder, classifier: Classifier, details: dict[str, Any]) -> FinetuneResult | None:
        """Measure on data.val, and write classifier and result; None in all processes but the first."""
        settings, sets = self.settings, self.sets
        logits, rows = self._logits(classifier, sets.val, "data.val")
        if not self.fabric.is_global_zero:
            return None
        notes = {"source": f"fine-tuned with labels of {len(self.trained)} images"}
        info = replace(self.info, image_size=self.transform.image_size, notes=notes)
        said = classifier_notes(sets.classes, multi_label=self.multi_label, resize=settings.resize)
        save_classifier(classifier, run.path / CLASSIFIER_FILE, replace(info, notes=notes | said))
        labels = torch.from_numpy(sets.val_labels)[rows]
        details |= {"train_images": self._counts(), "unreadable_val": len(sets.val) - len(rows)}
        sections: dict[str, Any] = {
            "notes": self._notes(),
            "checkpoint": self.origin,
            "data": {
                name: described(paths, source, len(sets.classes))
                | {"sha256": _fingerprint(source, sets.classes, labels).sha256}
                for name, paths, source, labels in (
                    ("train", settings.data.train, sets.train, sets.train_labels),
                    ("val", settings.data.val, sets.val, sets.val_labels),
                )
            },
            "settings": settings.model_dump(mode="json"),
            "transform": asdict(self.transform),
            "unreadable": named_reasons(left_out(sets.val, rows.numpy(), self._how())),
        }
        path = run.path / FILE_NAME
        if self.multi_label:
            write_scores(run.path, logits, labels, map(sets.val.name, rows.tolist()))
            measured_labels = multi_label_result(logits, labels, rows, sets.classes, sets.val)
            content = write_content(path, details=details, **measured_labels, **sections)
        else:
            answers = label_answers(logits, labels)
            write_ranks(run.path, answers[:, :2], map(sets.val.name, rows.tolist()))
            accuracy = accuracy_of_ranks(answers, labels, sets.classes)
            details["mean_per_class"] = round(fmean(share for share, _ in accuracy.per_class.values()), 2)
            confusions = largest_confusions(answers, labels, sets.classes)
            measured = Measurement("finetune", accuracy, confusions, answers[:, :2], rows, details)
            mistakes = mistakes_of(logits, labels, rows, sets.classes, sets.val)
            content = write_result(path, measured, **sections, **mistakes).content
        save_backbone(
            classifier.backbone, run.backbone, **info.to_build()
        )  # the last: with it a run counts as complete
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return FinetuneResult(run.path, run.path / CLASSIFIER_FILE, path, content)

    def _score(self, module: SelectedClassifier) -> dict[str, float]:
        """How right the latest weights are on the part held out, after which the best are kept."""
        part = SubsetSource(self.sets.train, self.held_out)
        logits, rows = self._logits(module.classifier, part, "the held-out part of data.train")
        labels = torch.from_numpy(self.sets.train_labels[self.held_out])[rows]
        if self.multi_label:
            arrays = logits.numpy(), labels.numpy()
            name, score = "holdout_map", 100 * mean_average_precision(*arrays)
            module.note(score, 100 * average_precision_error(*arrays))
        else:
            num_right = int((logits.argmax(1) == labels).sum())
            name, score = "holdout_top1", 100 * num_right / len(labels)
            module.note(score, standard_error(num_right, len(labels)))
        return {name: score}

    def _how(self) -> Extraction:
        return Extraction(self.fabric.device, _BATCH, self.workers, limits=self.limits)

    def _logits(self, classifier: Classifier, source: Source, what: str) -> tuple[Tensor, Tensor]:
        """Of the readable images of a set, on the CPU: ``[M, C]``, and their positions ``[M]``."""
        found = torch.zeros(len(source), len(self.sets.classes) + 1, device=self.fabric.device)
        with eval_mode(classifier):
            for indices, logits in feature_batches(classifier, source, self.transform, self._how(), bad=[]):
                found[indices.to(self.fabric.device)] = F.pad(logits, (0, 1), value=1)
        sum_over_processes(found)  # each row is non-zero in one process only
        found = found.cpu()
        rows = found[:, -1].nonzero()[:, 0]
        check_bad_share(len(found) - len(rows), len(found), what, self.settings.data.max_bad_share)
        return found[rows, :-1], rows

    def _counts(self) -> dict[str, int]:
        classes = self.sets.classes
        return dict(zip(classes, class_counts(self.sets.train_labels, len(classes)).tolist(), strict=True))

    def _notes(self) -> list[str]:
        """What a reader must know of the sets, classes of unequal size too."""
        notes = list(self.sets.notes)
        counts = {name: number for name, number in self._counts().items() if number}
        (few, least), (many, most) = (pick(counts.items(), key=lambda item: item[1]) for pick in (min, max))
        if most > _IMBALANCED * least:
            done = (
                "balance=true compensates for it" if self.settings.balance else "balance=true would compensate for it"
            )
            notes.append(f"the classes have from {least:,} ({few}) to {most:,} ({many}) training images; {done}.")
        return notes


def _fingerprint(source: Source, classes: tuple[str, ...], labels: npt.NDArray[np.int64]) -> DataFingerprint:
    """Of images and labels, also of those of a table, which the source does not know."""
    found = data_fingerprint(source)
    if labels.ndim == 1:
        return found
    text = "\n".join(classes).encode("utf-8", "surrogateescape")
    return replace(found, labels=hashlib.sha256(text + labels.tobytes()).hexdigest())
