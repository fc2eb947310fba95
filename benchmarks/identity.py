"""Fingerprints of what training computes, to see that moving code has changed nothing.

Twenty steps of every method with one process and with two, a detector, the trained linear protocol and semi-supervised
fine-tuning, each on drawn images; then SHA-256 of the trained weights and of the recorded figures, times left out. The
same machine, threads and packages give the same fingerprints, so they are written before a change and compared after:

    python benchmarks/identity.py --write before.json
    python benchmarks/identity.py --compare before.json
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from PIL import Image

METHODS: dict[str, list[str]] = {
    "dino": ["dino.head_hidden_dim=64", "dino.head_output_dim=128"],
    "swav": ["swav.num_prototypes=64", "swav.queue_size=32", "swav.queue_start_epoch=1"],
    "moco": ["moco.queue_size=64"],
}
TIMES = {"images_per_second", "data_wait_share", "seconds", "training_seconds", "peak_memory_mib"}


def sslight(*words: str, processes: int = 1) -> None:
    """Run one command to its end."""
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29541"]
    done = subprocess.run(
        [*python, "-m", "sslight", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"sslight {' '.join(words)} failed:\n{done.stderr[-4000:]}")


def weights(path: Path) -> str:
    """SHA-256 of all tensors of a safetensors file, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(safetensors.torch.load_file(path).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def figures(path: Path) -> str:
    """SHA-256 of the lines of metrics.jsonl without times and without the verdict, which knows of them."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [{k: v for k, v in sorted(line.items()) if k not in TIMES | {"health"}} for line in lines]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def labeled_images(folder: Path, *, each: int, seed: int) -> Path:
    """Three classes of coarse noise, 48 px."""
    rng = np.random.default_rng(seed)
    for label in ("a", "b", "c"):
        (folder / label).mkdir(parents=True)
        for i in range(each):
            coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((48, 48)).save(folder / label / f"{i:03}.png")
    return folder


def coco_folder(folder: Path) -> Path:
    """Twelve images of 96 px with a box each, in COCO's layout."""
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for split in ("train2017", "val2017"):
        (folder / split).mkdir(parents=True)
    for i in range(12):
        left, top, width, height = (int(v) for v in rng.integers(10, 40, 4))
        pixels = rng.integers(0, 60, (96, 96, 3), dtype=np.uint8)
        pixels[top : top + height, left : left + width] = (200, 40 * (i % 2), 90)
        for split in ("train2017", "val2017"):
            Image.fromarray(pixels).save(folder / split / f"{i:06}.png")
        images.append({"id": i + 1, "file_name": f"{i:06}.png", "width": 96, "height": 96})
        annotations.append(
            {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 1 + i % 2,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    (folder / "annotations").mkdir()
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    }
    for split in ("train2017", "val2017"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def fingerprints(folder: Path) -> dict[str, Any]:
    """All of them."""
    found: dict[str, Any] = {}
    train, val = (labeled_images(folder / name, each=n, seed=n) for name, n in (("train", 30), ("val", 10)))
    for method, more in METHODS.items():
        for processes in (1, 2):
            run = folder / f"{method}-{processes}"
            sslight(
                "pretrain",
                f"{method}_cnn_sslight_64",
                *more,
                *("backbone=mobilenetv2_035", "views.num_local=2", "views.global_size=32", "views.local_size=16"),
                *("batch_size=16", "steps=20", "log_every=1", "devices=cpu", "optim.warmup_epochs=0.2", "logger=none"),
                *(f"data.train={train}", f"data.val={val}", "probe.linear=true", f"output={run}", "workers=1"),
                processes=processes,
            )
            found[run.name] = {
                "weights": weights(run / "backbone.safetensors"),
                "figures": figures(run / "metrics.jsonl"),
            }
            print(run.name, found[run.name], flush=True)
    backbone, checkpoint = (str(folder / "dino-1" / name) for name in ("backbone.safetensors", "checkpoints/last.pt"))
    sets = (f"data.train={train}", f"data.val={val}", "devices=cpu")
    for name, words in {
        "linear": ("evaluate", "linear", backbone, *sets, "linear.epochs=3", "linear.batch_size=16"),
        "semi": (
            "evaluate",
            "semi",
            checkpoint,
            *sets,
            "semi.epochs=3",
            "semi.batch_size=16",
        ),
    }.items():
        result = folder / name
        sslight(*words, f"output={result}", *([f"cache={folder / 'cache'}"] if name == "linear" else []))
        content = json.loads((result / "results.json").read_text(encoding="utf-8"))
        found[name] = {"weights": weights(result / "classifier.safetensors"), "accuracy": content["accuracy"]["top1"]}
        if name == "semi":
            found[name]["backbone"] = weights(result / "backbone.safetensors")
        print(name, found[name], flush=True)
    result = folder / "detect"
    sslight(
        *(
            "evaluate",
            "detect",
            backbone,
            f"data={coco_folder(folder / 'coco')}",
            "steps=20",
            "batch_size=4",
            "log_every=1",
        ),
        *("train_sizes=[96]", "test_size=96", "max_size=128", "devices=cpu", "logger=none", f"output={result}"),
    )
    found["detect"] = {
        "weights": weights(result / "detector.safetensors"),
        "figures": figures(result / "metrics.jsonl"),
    }
    print("detect", found["detect"], flush=True)
    return found


def main() -> None:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--compare", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fingerprints(Path(folder))
    if arguments.write:
        arguments.write.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if arguments.compare:
        before = json.loads(arguments.compare.read_text(encoding="utf-8"))
        changed = sorted(name for name in before if before[name] != found.get(name))
        print("the same" if not changed else f"changed: {', '.join(changed)}")
        sys.exit(bool(changed))


if __name__ == "__main__":
    main()
