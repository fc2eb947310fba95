"""The model card of a timm folder: which trainings led to the weights, on what, and what was measured of them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslight.backbones import timm_name
from sslight.config import read_plain_settings, write_yaml
from sslight.export.network import Exportable
from sslight.train.record.run_weights import run_folder_of

_PRETRAINING = (
    *("method", "epochs", "steps", "batch_size", "lr", "seed", "init_from", "global_pair_weight"),
    *("views.num_global", "views.num_local", "views.global_size", "views.local_size"),
    *("views.global_scale", "views.local_scale"),
)
_FOUND = ("epochs", "batch_size", "chosen_epoch", "num_held_out")  # what a fine-tuning decided itself
_FINE_TUNING = (
    *("model", "init", "data.subset", "holdout", *_FOUND, "lr", "head_lr_factor", "weight_decay"),
    *("head_init", "freeze_norms"),
    *("label_smoothing", "crop_scale", "balance", "image_size", "seed"),
    *("semi.head", "semi.epochs", "semi.batch_size", "semi.lr", "semi.head_lr_factor"),
)
_NOT_SAID = ("classes", "multi_label", "resize")


@dataclass(frozen=True)
class _Stage:
    """One training, by the settings in its run folder."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def pretraining(self) -> bool:
        return "method" in self.settings

    @property
    def start(self) -> str:
        """The weights that it started from; empty for new ones."""
        start = str(self.settings.get("init_from" if self.pretraining else "model") or "")
        new = self.settings.get("init") == "random" and not self.pretraining
        return "" if new else start

    @property
    def run_before(self) -> Path | None:
        """Where the run lies whose weights it started from, if they are of a file."""
        is_name = not self.start or self.start.startswith(("timm:", "hf-hub:"))
        return None if is_name else run_folder_of(str(Path(self.start).expanduser().absolute()))

    @property
    def heading(self) -> str:
        return f"{'Pre-training without labels' if self.pretraining else 'Fine-tuning'} ({self.folder.name})"


def model_card(
    exportable: Exportable, *, resize: int, license: str | None, run: Path, results: Sequence[Mapping[str, Any]]
) -> str:
    """Markdown with the fields that hubs read in front; arguments as of ``write_timm_folder``."""
    info, classifier = exportable.info, exportable.classifier
    task = "feature-extraction" if classifier is None else "classification"
    stages = _stages(run)
    own_tags = ["self-supervised-learning"] if any(stage.pretraining for stage in stages) else []
    front = {
        "license": license or "unknown",
        "library_name": "timm",
        "pipeline_tag": f"image-{task}",
        "tags": ["timm", f"image-{task}", *own_tags],
    }
    said = "features" if classifier is None else f"logits of {len(classifier.classes)} classes"
    notes = "; ".join(f"{value}" for key, value in info.notes.items() if key not in _NOT_SAID) or "none"
    measured = [_measured(result) for result in results if result.get("accuracy")]
    tuned = [found for found in results if found["protocol"].startswith("finetune")]  # the last stage, if any
    decided: Mapping[str, Any] = tuned[0]["details"] if tuned else {}
    recipe = [line for at, stage in enumerate(stages) for line in _recipe(stage, {} if at else decided)]
    source = run.absolute().name or "a file of weights"
    lines = [
        *("---", f"{write_yaml(front)}---", "", f"# {_title(exportable, stages)}", ""),
        f"Images at {info.image_size} px → {said}. From {source}; notes of the file: {notes}.",
        *("", "## Data", ""),
        *([line for stage in stages for line in _data(stage)] or ["Not known: no run folder was beside the weights."]),
        *("", "## Recipe", ""),
        *(recipe or ["Not known, as above.", ""]),
        *("## Measurements", ""),
        *(
            ["| protocol | images | px | number | accuracy (%), 95 % interval |", "|---|---|---|---|---|", *measured]
            if measured
            else ["None were found: `sslight evaluate` had not measured these weights."]
        ),
        *("", "## Use", "", "```python", "import timm", ""),
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:OWNER/NAME"',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        *("```", ""),
        f"RGB, shorter side resized to {resize} px (bicubic, antialiased), center of {info.image_size} px, mean "
        f"{list(info.mean)}, deviation {list(info.std)} of values from 0 to 1.",
    ]
    return "\n".join([*lines, ""])


def _stages(run: Path) -> list[_Stage]:
    """The trainings that led to the weights in a folder, the last one first, as far as their folders are there."""
    stages: list[_Stage] = []
    with suppress(ValueError):  # weights that come from elsewhere have no config.yaml
        before: Path | None = run.absolute()
        while before is not None and before not in [stage.folder for stage in stages]:
            stages.append(_Stage(before, read_plain_settings(before / "config.yaml")))
            before = stages[-1].run_before
    return stages


def _title(exportable: Exportable, stages: Sequence[_Stage]) -> str:
    name, classifier = timm_name(exportable.info.name), exportable.classifier
    classes = "" if classifier is None else f"{len(classifier.classes)} classes"
    fine_tuned = exportable.info.notes.get("source", "").startswith("fine-tuned")  # says a file without its folder too
    if fine_tuned or (stages and not stages[0].pretraining):
        return f"{name}, fine-tuned with sslight{classes and f' for {classes}'}"
    trained = f"{name}, pre-trained with sslight" if stages else f"{name}, exported by sslight"
    return f"{trained}{classes and f', with a linear classifier of {classes}'}"


def _data(stage: _Stage) -> list[str]:
    of = "pre-training" if stage.pretraining else "fine-tuning"
    sets = {key: _names(stage.settings.get(key)) for key in ("data.train", "data.val")}
    return [f"- `{key}` of {of}: {names}" for key, names in sets.items() if names]


def _recipe(stage: _Stage, decided: Mapping[str, Any]) -> list[str]:
    settings = {**stage.settings, **{key: value for key, value in decided.items() if key in _FOUND}}
    for key in ("init_from", "model"):
        if settings.get(key):
            settings[key] = _start(str(settings[key]))
    keys = _PRETRAINING if stage.pretraining else _FINE_TUNING
    rows = [_row(key, settings[key]) for key in keys if settings.get(key) is not None]
    return [f"{stage.heading}:", "", "| setting | value |", "|---|---|", *rows, ""]


def _row(*fields: Any) -> str:
    cells = (" ".join(str(field).split()).replace("|", "\\|") for field in fields)
    return f"| {' | '.join(cells)} |"


def _measured(result: Mapping[str, Any]) -> str:
    found, paths = result["accuracy"], result.get("data", {}).get("val", {}).get("paths")
    key, name = ("top1", "top-1") if "top1" in found else ("map", "mAP")
    accuracy = "{} {:.1f} ({:.1f} – {:.1f})".format(name, found[key], *found[f"{key}_interval"])
    side = result.get("transform", {}).get("image_size", "")
    return _row(result["protocol"], _names(paths), side, found["num_images"], accuracy)


def _start(weights: str) -> str:
    """Which weights, without their place on a machine: the name of their run, file or network."""
    name, at, file = weights.partition("@")
    if at and name.startswith("timm:"):
        return f"{name}@{Path(file).name}"
    if weights.startswith(("timm:", "hf-hub:")):
        return weights
    folder = run_folder_of(weights)
    return folder.name if (folder / "config.yaml").is_file() else Path(weights).name


def _names(paths: Any) -> str:
    """Last parts of paths and addresses: where they lie, and what signs an address, is nobody's business."""
    plain = [str(path).partition("?")[0] if "://" in str(path) else str(path) for path in paths or ()]
    return ", ".join(Path(path).name for path in plain)
