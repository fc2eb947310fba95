"""A folder that ``timm.create_model("local-dir:...", pretrained=True)`` opens and a hub takes as it is."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
from torch import nn

from sslight.backbones import timm_name
from sslight.config import read_plain_settings
from sslight.export.network import Exportable
from sslight.export.weights_file import num_classes_of, vit_arguments, without_classifier, write_weights

_RECIPE = (
    *("method", "epochs", "steps", "batch_size", "lr", "seed", "init_from", "global_pair_weight"),
    *("views.num_global", "views.num_local", "views.global_size", "views.local_size"),
    *("views.global_scale", "views.local_scale"),
)


def write_timm_folder(
    exportable: Exportable,
    folder: Path,
    *,
    resize: int,
    license: str | None,
    run: Path,
    results: Sequence[Mapping[str, Any]],
) -> None:
    """Write weights, timm's configuration, and a model card of the run in ``run`` with its ``results``.

    ``resize`` is the shorter side before the center is cut, px.
    """
    folder.mkdir()
    info, classifier, size = exportable.info, exportable.classifier, exportable.info.image_size
    write_weights(exportable, folder / "model.safetensors", keys="timm")
    known = exportable.backbone.pretrained_cfg
    assert isinstance(known, Mapping)
    config = {
        "architecture": timm_name(info.name),
        "num_classes": num_classes_of(exportable),
        "num_features": exportable.backbone.num_features,
        **({} if classifier is None else {"label_names": list(classifier.classes)}),
        "model_args": vit_arguments(exportable),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": bool(vit_arguments(exportable)),
            "interpolation": "bicubic",
            "crop_pct": size / (resize + 1e-6),  # timm rounds size / crop_pct down
            "crop_mode": "center",
            "mean": list(info.mean),
            "std": list(info.std),
            "num_classes": num_classes_of(exportable),
            "pool_size": None,
            **{name: known[name] for name in ("first_conv", "classifier")},
        },
    }
    (folder / "config.json").write_text(f"{json.dumps(config, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
    card = _card(exportable, resize=resize, license=license, run=run, results=results)
    (folder / "README.md").write_text(card, encoding="utf-8")


def open_timm_folder(exportable: Exportable, folder: Path) -> nn.Module:
    """The exported network, from the folder through timm."""
    return without_classifier(exportable, timm.create_model(f"local-dir:{folder}", pretrained=True))


def _card(
    exportable: Exportable, *, resize: int, license: str | None, run: Path, results: Sequence[Mapping[str, Any]]
) -> str:
    info, classifier = exportable.info, exportable.classifier
    name, task = timm_name(info.name), "feature-extraction" if classifier is None else "classification"
    settings: dict[str, Any] = {}
    with suppress(ValueError):  # weights that come from elsewhere have none
        settings = read_plain_settings(run / "config.yaml")
    recipe = [f"| {key} | {settings[key]} |" for key in _RECIPE if settings.get(key) is not None]
    sets = {key: _names(settings.get(key)) for key in ("data.train", "data.val")}
    data = [f"- `{key}`: {names}" for key, names in sets.items() if names]
    measured = [_measured(result) for result in results if result.get("accuracy")]
    said = "features" if classifier is None else f"logits of {len(classifier.classes)} classes"
    lines = [
        *("---", f"license: {license or 'unknown'}", "library_name: timm", f"pipeline_tag: image-{task}"),
        *("tags:", "- timm", f"- image-{task}", "- self-supervised-learning", "---", ""),
        *(f"# {name}, pre-trained with sslight", ""),
        f"Images at {info.image_size} px → {said}. From {run.name or 'a file of weights'}; notes of the file: "
        f"{'; '.join(f'{value}' for key, value in info.notes.items() if key not in _NOT_SAID) or 'none'}.",
        *("", "## Data", ""),
        *(data or ["Not known: the folder of the run was not beside the weights."]),
        *("", "## Recipe", ""),
        *(["| setting | value |", "|---|---|", *recipe] if recipe else ["Not known, as above."]),
        *("", "## Measurements", ""),
        *(
            ["| protocol | images | px | number | top-1 (%), 95 % interval |", "|---|---|---|---|---|", *measured]
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


def _measured(result: Mapping[str, Any]) -> str:
    found, paths = result["accuracy"], result.get("data", {}).get("val", {}).get("paths")
    top1 = "{:.1f} ({:.1f} – {:.1f})".format(found["top1"], *found["top1_interval"])
    side = result.get("transform", {}).get("image_size", "")
    return f"| {result['protocol']} | {_names(paths)} | {side} | {found['num_images']} | {top1} |"


_NOT_SAID = ("classes", "multi_label", "resize")


def _names(paths: Any) -> str:
    """Last parts of paths: where they lie on a machine is nobody's business."""
    return ", ".join(Path(str(path)).name for path in paths or ())
