"""Which edge networks of timm come through pre-training and export, and as what.

``python benchmarks/devices.py FOLDER [NAME...]`` (with the extras ``export`` and ``litert``): each network has twenty
steps of pre-training on drawn images, at 64 px, or at 224 px if it takes one size alone (after two steps the statistics
of batch norms are so far off that features hardly differ between images). Then it is exported as ONNX, ONNX in 8 bits
and LiteRT, and what is refused once more with everything accepted, for its figures; one network at a time in a process
of its own with a limit of processor time. A network's row is kept as ``FOLDER/NAME.json``, so the same command goes on
where it was; ``FOLDER/devices.md`` is the table of all rows.
"""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import sslight

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


def main() -> None:
    """Measure the networks that have no row yet, and write the table after each."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or NETWORKS:
        file = folder / f"{name}.json"
        if not file.exists():
            words = [sys.executable, __file__, "--one", name, str(folder / "runs" / name), str(file)]
            found = subprocess.run(words, preexec_fn=limit_time, capture_output=True, text=True, check=False)
            if not file.exists():
                error = (found.stderr.strip().splitlines() or [f"ended with {found.returncode}"])[-1]
                if found.returncode == -signal.SIGXCPU:
                    error = f"took more than {MINUTES} minutes of processor time"
                file.write_text(json.dumps({"name": name, "said": [error]}), encoding="utf-8")
        rows = [json.loads((folder / f"{each}.json").read_text(encoding="utf-8")) for each in finished(folder)]
        (folder / "devices.md").write_text(table(rows), encoding="utf-8")
        print(name, rows[[row["name"] for row in rows].index(name)]["said"], flush=True)


def limit_time() -> None:
    """End this process after its minutes."""
    resource.setrlimit(resource.RLIMIT_CPU, (60 * MINUTES, 60 * MINUTES + 5))


def finished(folder: Path) -> list[str]:
    """Networks with a row: those of the list in its order, then others."""
    found = sorted(path.stem for path in folder.glob("*.json"))
    return [name for name in NETWORKS if name in found] + [name for name in found if name not in NETWORKS]


def measure(name: str, run: Path, file: Path) -> None:
    """The row of one network."""
    row: dict[str, Any] = {"name": name, "said": []}
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
    file.write_text(json.dumps(row, indent=1), encoding="utf-8")


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
            runs=5,
        )
    except ValueError as error:
        said = [] if accepted else [line for line in str(error).splitlines() if " agreed and is in " not in line]
    if (output / "export.json").exists():
        content = json.loads((output / "export.json").read_text(encoding="utf-8"))
        row["files"] |= {found["format"]: found for found in content["files"].values()}
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


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each network and format agreement, size and time, then the sentences."""
    lines = [
        f"| network | {' | '.join(f'{form}: SNR (dB) | MB | ms' for form in FORMATS)} | ms, PyTorch |",
        f"|---|{'---|' * (3 * len(FORMATS) + 1)}",
    ]
    for row in rows:
        cells, files = [], row.get("files", {})
        for form in FORMATS:
            if form in files:
                found = files[form]
                refused = any(f"format={form} disagrees" in said for said in row["said"])
                snr = f"{found['agreement']['signal_to_noise']:.0f}{' (refused)' if refused else ''}"
                if (how := found.get("quantization")) and how["float_layers"]:
                    snr += f" ({len(how['float_layers'])} of {how['num_layers']} layers in float)"
                cells += [snr, f"{found['num_bytes'] / 1e6:.2f}", f"{found['latency_ms']['1']:.2f}"]
            else:
                cells += ["no", "", ""]
        pytorch = [f"{found['pytorch_latency_ms']['1']:.1f}" for found in files.values()]
        size = "" if row.get("size", SIZES[0]) == SIZES[0] else f" ({row['size']} px)"
        lines.append(f"| {row['name']}{size} | {' | '.join(cells)} | {pytorch[0] if pytorch else ''} |")
    said = [f"- `{row['name']}`: {line}" for row in rows for line in row["said"]]
    return "\n".join([*lines, "", *said]) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        measure(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
