"""Which edge networks of timm come through pre-training and export, and as what.

``python benchmarks/devices.py FOLDER [NAME...]`` (with the extras ``export`` and ``litert``): each network has twenty
steps of pre-training on drawn images, at 64 px with local views of 32, or at 224 px if it does not take these sizes
(after two steps the statistics of batch norms are so far off that features hardly differ between images). Then it is
exported as ONNX, ONNX in 8 bits and LiteRT, and what is refused once more with everything accepted, for its figures;
one network at a time in a process of its own with a limit of processor time. A network's row is kept as
``FOLDER/NAME.json`` and its files in ``FOLDER/runs/NAME``, so the same command goes on where it was;
``FOLDER/devices.md`` is the table of all rows.

``python benchmarks/devices.py --times FOLDER [PAGE]`` then measures the milliseconds of all these files, and of the
networks in PyTorch, in one pass on a machine that should do nothing else: one image, one thread, by turns. It writes
``FOLDER/times.json`` and the table again, and puts the table and its sentences in the place of those in PAGE.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sslight
from sslight.backbones import read_backbone_info
from sslight.export.checks.cost import device_facts, latencies
from sslight.views import normalize

NETWORKS = (
    *("mobilenetv3_small_050", "lcnet_050", "test_resnet", "mobilenetv2_035", "mnasnet_small", "tinynet_e"),
    *("regnetx_002", "resnet10t", "mobileone_s0", "repghostnet_050", "convnext_atto", "starnet_s1", "shvit_s1"),
    *("mobilenetv4_conv_small", "efficientvit_m0", "efficientvit_b0", "edgenext_xx_small", "mobilevit_xxs"),
    *("mobilevitv2_050", "ghostnetv2_100", "ghostnetv3_100", "repvit_m0_9", "fastvit_t8", "swiftformer_xs"),
    *("mambaout_femto", "hgnetv2_b0", "levit_128s", "efficientformerv2_s0", "efficientnet_lite0", "efficientnet_b0"),
    *("tiny_vit_5m_224", "deit_tiny_distilled_patch16_224", "resnet14t", "resnet18"),
)
FORMATS = ("onnx", "onnx-int8", "litert")
INT8 = {"int8.method": "minmax", "int8.float_layers": 0}  # an analysis by layer would take most networks' minutes
MINUTES, SIZES = 12, (64, 224)  # of processor time, so that a busy machine refuses nothing
PYTORCH, RUNS = "PyTorch", 60
TIMES, MILLISECONDS = "times.json", "Milliseconds: "
PACKAGES = ("torch", "onnxruntime", "ai-edge-litert")


def main() -> None:
    """Measure the networks that have no row yet, and write the table after each."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or NETWORKS:
        file = folder / f"{name}.json"
        if not file.exists():
            words = [sys.executable, __file__, "--one", name, str(folder)]
            found = subprocess.run(words, preexec_fn=limit_time, capture_output=True, text=True, check=False)
            if not file.exists():
                error = (found.stderr.strip().splitlines() or [f"ended with {found.returncode}"])[-1]
                if found.returncode == -signal.SIGXCPU:
                    error = f"took more than {MINUTES} minutes of processor time"
                file.write_text(json.dumps({"name": name, "said": [error]}), encoding="utf-8")
        write_table(folder)
        print(name, json.loads(file.read_text(encoding="utf-8"))["said"], flush=True)


def limit_time() -> None:
    """End this process after its minutes."""
    resource.setrlimit(resource.RLIMIT_CPU, (60 * MINUTES, 60 * MINUTES + 5))


def finished(folder: Path) -> list[dict[str, Any]]:
    """The rows: of the networks of the list in its order, then of others."""
    found = {path.stem: path for path in sorted(folder.glob("*.json")) if path.name != TIMES}
    names = [name for name in NETWORKS if name in found] + [name for name in found if name not in NETWORKS]
    return [json.loads(found[name].read_text(encoding="utf-8")) for name in names]


def measure(name: str, folder: Path) -> None:
    """The row of one network, and its files."""
    row: dict[str, Any] = {"name": name, "said": []}
    run = folder / "runs" / name
    shutil.rmtree(run, ignore_errors=True)  # what is there was broken off
    try:
        row["size"] = size = pretrained(name, run)
    except ValueError as error:
        row["said"] += str(error).splitlines()
    else:
        row["files"], formats = {}, list(FORMATS)
        for accepted in (False, True):
            if formats:
                row["said"] += export(run, size, formats, row, accepted=accepted)
            formats = [form for form in formats if form not in row["files"]]
    (folder / f"{name}.json").write_text(json.dumps(row, indent=1), encoding="utf-8")


def export(run: Path, size: int, formats: list[str], row: dict[str, Any], *, accepted: bool) -> list[str]:
    """Put the files that come through into the row; what is said of the others, but not of what is accepted."""
    output, said = run / ("accepted" if accepted else "export"), list[str]()
    try:
        sslight.export_backbone(
            run / "backbone.safetensors",
            {"data.check": "synthetic:96:val", "data.calibration": "synthetic:64", "image_size": size, **INT8},
            tolerance={"cosine": -1.0, "knn": 0.0} if accepted else {},
            format=formats,
            output=output,
            runs=3,  # the fewest; what is measured here is not used
        )
    except ValueError as error:
        said = [] if accepted else [line for line in str(error).splitlines() if " agreed and is in " not in line]
    if (output / "export.json").exists():
        content = json.loads((output / "export.json").read_text(encoding="utf-8"))
        for file, found in content["files"].items():
            row["files"][found["format"]] = found | {"path": str((output / file).relative_to(run))}
        row["versions"], row["device"] = content["versions"], content["device"]
    return said


def pretrained(name: str, run: Path) -> int:
    """Pre-train, and say at which size in px."""
    for size in SIZES:
        changes = {
            **{"data.train": "synthetic:320", "logger": "none", "probe.knn": False},
            **({"views.num_local": 2, "views.local_size": 32} if size == SIZES[0] else {"views.num_local": 0}),
            **{"views.global_size": size},
            **{"dino.head_hidden_dim": 256, "dino.head_output_dim": 256},
        }
        how: dict[str, Any] = {
            "backbone": name,
            "output": run,
            "steps": 20,
            "batch_size": 16,
            "devices": "cpu",
            "workers": 0,
        }
        try:
            sslight.pretrain("dino_cnn_sslight_64", changes, **how)
            break
        except ValueError as error:
            if size == SIZES[-1] or "does not fit the backbone" not in str(error):
                raise
    return size


def measure_times(folder: Path) -> None:
    """Milliseconds of all files: some runs of each, some of the next, and so on many times over; medians."""
    torch.set_num_threads(1)
    load, runs = os.getloadavg()[0], dict[str, Callable[[], object]]()
    for row in (row for row in finished(folder) if row.get("files")):
        run, size = folder / "runs" / row["name"], row["size"]
        for form, found in row["files"].items():
            runs[f"{row['name']} {form}"] = opened(run / found["path"], size)
        runs[f"{row['name']} {PYTORCH}"] = opened(run / "backbone.safetensors", size)
    found = latencies(runs, num_runs=RUNS)
    facts = {"date": datetime.now(UTC).date().isoformat(), "load": load, "device": device_facts()}
    facts |= {"versions": {name: version(name) for name in PACKAGES}, "ms": found}
    (folder / TIMES).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def opened(file: Path, size: int) -> Callable[[], object]:
    """What computes one image on one thread, from its bytes on."""
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    if file.suffix == ".onnx":
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"images": images})
    if file.suffix == ".tflite":
        interpreter = import_module("ai_edge_litert.interpreter").Interpreter(str(file), num_threads=1)
        runner = interpreter.get_signature_runner()
        return lambda: runner(images=images)
    network, info = sslight.load_backbone(file), read_backbone_info(file)
    image = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def run() -> object:
        return network(normalize(image[None], info.mean, info.std))

    return run


def write_table(folder: Path, page: Path | None = None) -> None:
    """Write the table and its sentences, and put them in the place of those in a page."""
    rows, times = finished(folder), folder / TIMES
    lines = table(rows, json.loads(times.read_text(encoding="utf-8")) if times.exists() else {})
    lines += ["", *(f"- `{row['name']}`: {shortened(line)}" for row in rows for line in row["said"])]
    (folder / "devices.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if page is not None:
        old = page.read_text(encoding="utf-8").splitlines()
        start = next(at for at, line in enumerate(old) if line.startswith(MILLISECONDS))
        end = next((at for at, line in enumerate(old) if at > start and line.startswith("#")), len(old))
        page.write_text("\n".join([*old[:start], *lines, "", *old[end:]]) + "\n", encoding="utf-8")


def shortened(line: str) -> str:
    """Of a refusal the format and the reason; others as they are."""
    found = re.match(r"format=(\S+) disagrees .*? is not written: (.*?)(?: \(|;)", line)
    return f"`{found[1]}` is refused: {found[2]}." if found else line


def table(rows: list[dict[str, Any]], times: dict[str, Any]) -> list[str]:
    """Lines of Markdown: where the times are from, and for each network and format agreement, size and time."""
    said = "not measured yet."
    if times:
        versions = ", ".join(f"{name} {number}" for name, number in times["versions"].items())
        device = times["device"]
        said = (
            f"one thread of {device['processor']} ({device['cores']} cores), load {times['load']:.2f} at the start, "
            f"on {times['date']}; {versions}."
        )
    lines = [
        f"{MILLISECONDS}{said}",
        "",
        f"| network | {' | '.join(f'{form}: SNR (dB) | MB | ms' for form in FORMATS)} | ms, PyTorch |",
        f"|---|{'---|' * (3 * len(FORMATS) + 1)}",
    ]
    for row in rows:
        cells, files = [], row.get("files", {})
        ms = {form: times.get("ms", {}).get(f"{row['name']} {form}") for form in (*FORMATS, PYTORCH)}
        shown = {form: "" if value is None else f"{value:.2f}" for form, value in ms.items()}
        for form in FORMATS:
            if form in files:
                found = files[form]
                refused = any(f"format={form} disagrees" in said for said in row["said"])
                snr = f"{found['agreement']['signal_to_noise']:.0f}{' (refused)' if refused else ''}"
                cells += [snr, f"{found['num_bytes'] / 1e6:.2f}", shown[form]]
            else:
                cells += ["no", "", ""]
        size = "" if row.get("size", SIZES[0]) == SIZES[0] else f" ({row['size']} px)"
        lines.append(f"| {row['name']}{size} | {' | '.join(cells)} | {shown[PYTORCH]} |")
    return lines


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        measure(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1] == "--times":
        measure_times(Path(sys.argv[2]))
        write_table(Path(sys.argv[2]), *map(Path, sys.argv[3:4]))
    else:
        main()
