"""A folder that ``timm.create_model("local-dir:...", pretrained=True)`` opens and a hub takes as it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from torch import nn

from sslight.backbones import timm_name
from sslight.export.formats.model_card import model_card
from sslight.export.formats.weights_file import num_classes_of, vit_arguments, without_classifier, write_weights
from sslight.export.network import Exportable


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
    write_weights(exportable, folder / "model.safetensors", keys="timm", resize=resize)
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
    card = model_card(exportable, resize=resize, license=license, run=run, results=results)
    (folder / "README.md").write_text(card, encoding="utf-8")


def open_timm_folder(exportable: Exportable, folder: Path) -> nn.Module:
    """The exported network, from the folder through timm."""
    return without_classifier(exportable, timm.create_model(f"local-dir:{folder}", pretrained=True))
