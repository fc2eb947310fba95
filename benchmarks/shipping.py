"""What a fine-tuned classifier is worth in each runtime: accuracy in PyTorch and in every file that is shipped.

``python benchmarks/shipping.py FOLDER TRAIN VAL [COLUMN...]`` (class folders; with the extras ``export``, ``litert``,
``executorch`` and ``coreml``, and with openvino): three networks have a short pre-training without labels, and are
fine-tuned on 2,000 labeled images from there and from random weights. Each classifier is exported in all formats, and
every file goes through ``sslight predict`` on the same 2,000 validation images. OpenVINO reads the ONNX file; nothing
here runs Core ML. What is done is kept in ``FOLDER``, so the same command goes on; ``FOLDER/shipping.md`` is the table,
with all columns or those that are named, such as ``vit_tiny-scratch``.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import sslight
from sslight.data import build_source, image_batches
from sslight.intervals import paired_difference, wilson_interval

SIZE, LABELED, VAL_A_CLASS = 64, 0.04, 200  # px; share of TRAIN, drawn by class
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # recipe, changes to it, how it is fine-tuned
    "mobilenetv2_100": ("dino_cnn_sslight_64", {"data.subset": 0.2, "epochs": 2}, {}),
    "resnet18": ("dino_cnn_sslight_64", {"data.subset": 0.2, "steps": 100}, {}),
    "vit_tiny": (
        "dino_vit_sslight_64",
        {
            "patch_size": 16,
            "views.local_size": 32,
            "data.subset": 0.2,
            "steps": 50,
            "batch_size": 32,
            "optim.warmup_epochs": 0.03,
        },
        {"lr": 0.0003},
    ),
}
STARTS = {"pre-trained": "weights", "scratch": "random"}
FORMATS = (
    *("onnx", "onnx-fp16", "onnx-int8", "litert", "litert-fp16", "litert-int8"),
    *("executorch", "executorch-int8", "coreml"),
)
PYTORCH, OPENVINO = "PyTorch", "onnx in OpenVINO"


def main() -> None:
    """Train, ship and count whatever is missing in the folder, and write the table after each classifier."""
    folder, train, val = (Path(word) for word in sys.argv[1:4])
    some_val = fewer(val, folder / "val")
    for name, start in product(NETWORKS, STARTS):
        column = f"{name}-{start}"
        if column in (sys.argv[4:] or [column]):
            row = folder / f"{column}.json"
            if not row.exists():
                classifier = fine_tuned(folder, name, start, train, some_val)
                row.write_text(json.dumps(shipped(classifier, train, some_val)), encoding="utf-8")
            (folder / "shipping.md").write_text(table(folder), encoding="utf-8")


def fewer(val: Path, folder: Path) -> Path:
    """Evenly spread images of each class, copied."""
    for each in sorted(path for path in val.iterdir() if path.is_dir()):
        files = sorted(each.iterdir())
        (folder / each.name).mkdir(parents=True, exist_ok=True)
        for file in files[:: max(1, len(files) // VAL_A_CLASS)][:VAL_A_CLASS]:
            shutil.copyfile(file, folder / each.name / file.name)
    return folder


def fine_tuned(folder: Path, name: str, start: str, train: Path, val: Path) -> Path:
    """Run folder of the classifier that is fine-tuned from these weights."""
    recipe, changes, more = NETWORKS[name]
    first, found = folder / name, folder / f"{name}-{start}"
    if not (first / "backbone.safetensors").exists():
        how = {"data.train": train, "backbone": name, "output": first, "devices": "cpu", "workers": 0, **changes}
        sslight.pretrain(recipe, how, probe={"knn": False}, logger="none", resume="auto")
    if not (found / "classifier.safetensors").exists():
        sets = {"data.train": train, "data.val": val, "data.subset": LABELED, "image_size": SIZE, "devices": "cpu"}
        how = {**sets, **more, "epochs": 6}
        sslight.finetune(first, how, init=STARTS[start], logger="none", output=found)
    return found


def shipped(classifier: Path, train: Path, val: Path) -> dict[str, Any]:
    """Of each format whether each image is right, the size in bytes, and what was said of those that are refused."""
    row: dict[str, Any] = {"right": {PYTORCH: right(val, classifier)}, "bytes": {}, "float_layers": {}}
    data = {"data.check": val, "data.calibration": train}
    output = classifier / "export"
    try:
        sslight.export_backbone(classifier, data, format=list(FORMATS), output=output, runs=5)
    except ValueError as error:
        row["said"] = str(error).splitlines()
    facts = json.loads((output / "export.json").read_text(encoding="utf-8"))
    for name, found in facts["files"].items():
        row["bytes"][found["format"]] = found["num_bytes"]
        if how := found.get("quantization"):
            row["float_layers"][found["format"]] = [len(how["float_layers"]), how["num_layers"]]
        if found["format"] != "coreml":
            row["right"][found["format"]] = right(val, output / name)
        if found["format"] == "onnx":
            row["right"][OPENVINO] = right_in_openvino(val, output / name, facts["classes"])
    return row


def right(val: Path, file: Path) -> list[int]:
    """Of each image whether ``predict`` names its folder: 0 or 1."""
    found = sslight.predict(val, file)
    return [int(Path(name).parent.name == label) for name, label in zip(found.names, found.labels, strict=True)]


def right_in_openvino(val: Path, file: Path, classes: Sequence[str]) -> list[int]:
    """The same of an ONNX file, computed by OpenVINO in float32."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # at import it reports that to its makers
    openvino = import_module("openvino")
    network = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    source, found = build_source([str(val)], labeled=False), list[int]()
    for images, _, indices in image_batches(source, size=SIZE, batch_size=64, workers=0):
        for image, index in zip(images, indices.tolist(), strict=True):
            logits = network(image.permute(1, 2, 0)[None].numpy())["logits"]
            found.append(int(Path(source.name(index)).parent.name == classes[int(logits.argmax())]))
    return found


def table(folder: Path) -> str:
    """Markdown: accuracy by format, and what of it is lost to the float32 network on the same images."""
    rows = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*-*.json"))}
    lines = [f"| | {' | '.join(rows)} |", f"|---|{'---|' * len(rows)}"]
    forms = (PYTORCH, "onnx", OPENVINO, *FORMATS[1:-1])
    lines += [f"| {form} | {' | '.join(cell(row, form) for row in rows.values())} |" for form in forms]
    said = [f"- {name}: {line}" for name, row in rows.items() for line in row.get("said", [])]
    return "\n".join([*lines, "", *said]) + "\n"


def cell(row: Mapping[str, Any], form: str) -> str:
    """Top-1 in percent with its interval, or the paired difference to PyTorch and the share of answers that change."""
    right, reference = row["right"].get(form), row["right"][PYTORCH]
    if right is None:
        return "no"
    top1 = f"{100 * np.mean(right):.1f}"
    if form == PYTORCH:
        return "{} [{:.1f}, {:.1f}]".format(top1, *wilson_interval(sum(right), len(right)))
    changed = sum(one != other for one, other in zip(right, reference, strict=True))
    if not changed:
        return top1
    lost = paired_difference(right, reference)
    text = f"{top1} ({lost.value:+.2f} [{lost.low:+.1f}, {lost.high:+.1f}])"
    kept, of = row["float_layers"].get(form, (0, 0))
    return f"{text}, {kept} of {of} layers in float" if kept else text


if __name__ == "__main__":
    main()
