"""Kill runs again and again, and see whether they end as the run that nobody killed.

For each kind of run one is made without interruption. The same run is then started, killed (SIGKILL, the whole process
group) at a random moment or while a checkpoint is being written, started again with another number of loader
workers, and so on, until it has been killed as often as asked; then it ends. Weights, optimiser, centre, queues,
random generators, accuracies and the lines of metrics.jsonl must be equal bit for bit, times left out (and the verdict
on the run, which knows of the time spent waiting).

    python benchmarks/kills.py --kills 51
    python benchmarks/kills.py --kills 30 --runs linear semi detect --backbone mobilenetv2_035
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from identity import coco_folder, labeled_images

from sslight.train import load_checkpoint

PRETRAINING = {
    "data.train": "synthetic:160",
    "data.val": "synthetic:60:val",
    "batch_size": 8,
    "epochs": 4,
    "devices": "cpu",
    "log_every": 1,
    "logger": "none",
    "views.num_local": 2,
    "views.global_size": 32,
    "views.local_size": 16,
    "optim.warmup_epochs": 0.2,
    "checkpoint.every_steps": 3,
    "probe.linear": "true",
    "resume": "auto",
}
METHODS: dict[str, dict[str, object]] = {
    "dino": {"dino.head_hidden_dim": 256, "dino.head_output_dim": 512},
    "swav": {"swav.num_prototypes": 64, "swav.queue_size": 32, "swav.queue_start_epoch": 1},
    "moco": {"moco.queue_size": 64},
}
EVALUATIONS: dict[str, dict[str, object]] = {
    "linear": {"linear.epochs": 10, "linear.batch_size": 16, "image_size": 32},
    "semi": {"semi.epochs": 10, "semi.batch_size": 16, "image_size": 32},
    "detect": {"steps": 60, "batch_size": 4, "train_sizes": "[96]", "test_size": 96, "max_size": 128, "proposals": 32},
}
TRAINED = {"devices": "cpu", "log_every": 1, "logger": "none", "checkpoint.every_steps": 3, "resume": "auto"}
TIMES = {"images_per_second", "data_wait_share"}


@dataclass
class Tally:
    """What happened to one kind of run."""

    kills: int = 0
    while_writing: int = 0
    before_first_checkpoint: int = 0


def command(kind: str, output: Path, workers: int, backbone: str) -> list[str]:
    """The command line of one start."""
    images = output.parent / "images"
    if kind in METHODS:
        words = ["pretrain", f"{kind}_cnn_sslight_64"]
        settings = {**PRETRAINING, **METHODS[kind], "backbone": backbone}
    else:
        words = ["evaluate", kind, f"timm:{backbone}"]
        sets = {"data.train": images / "train", "data.val": images / "val"}
        settings = {**TRAINED, **EVALUATIONS[kind], **({"data": images / "coco"} if kind == "detect" else sets)}
        if kind == "linear":
            settings["cache"] = output.parent / "cache"
    settings |= {"output": output, "workers": workers}
    return [sys.executable, "-m", "sslight", *words, *(f"{key}={value}" for key, value in settings.items())]


def start(kind: str, output: Path, workers: int, backbone: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, so that its workers die with it."""
    return subprocess.Popen(
        command(kind, output, workers, backbone),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a run that nobody kills. Raises SystemExit with its last words if it fails."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a run failed with exit code {process.returncode}:\n{errors[-2000:]}")


def last_line(output: Path) -> int:
    """Step of the last whole line of metrics.jsonl, 0 without one."""
    try:
        return int(json.loads((output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"])
    except (OSError, IndexError, ValueError):
        return 0


def kill_once(process: subprocess.Popen[str], output: Path, tally: Tally, draws: random.Random) -> bool:
    """Kill a run at a random moment, every third time while it writes a checkpoint; False if it ended before."""
    partial = f".last.pt.{process.pid}.partial"
    writing_wanted = tally.kills % 3 == 2
    first = last_line(output)
    starting_wanted = draws.random() < 0.2
    while process.poll() is None and last_line(output) == first and not starting_wanted:
        time.sleep(0.01)
    moment = time.monotonic() + draws.uniform(0, 8 if starting_wanted else 2.5)
    while process.poll() is None:
        writing = (output / "checkpoints" / partial).exists()
        if writing if writing_wanted else time.monotonic() > moment:
            break
        time.sleep(0.0005)
    if process.poll() is not None or (output / "results.json").exists():
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    tally.kills += 1
    tally.while_writing += (output / "checkpoints" / partial).exists()
    tally.before_first_checkpoint += not any((output / "checkpoints").glob("last*.pt")) if output.exists() else 1
    return True


def differences(a: Any, b: Any, where: str) -> list[str]:
    """Where two states are not the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        keys = (a.keys() | b.keys()) - TIMES
        return [text for key in keys for text in differences(a.get(key), b.get(key), f"{where}.{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [where]
        return [text for i, (x, y) in enumerate(zip(a, b, strict=True)) for text in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def outcome(output: Path) -> dict[str, Any]:
    """All that must be equal: the last checkpoint, what was trained, accuracies and the lines of metrics.jsonl."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line.pop("health", None)  # a run that waits for data is starved
    found: dict[str, Any] = {"lines": lines}
    found |= {path.name: path.read_bytes() for path in output.glob("*.safetensors")}
    last, results = output / "checkpoints" / "last.pt", output / "results.json"
    if last.exists():
        found["state"] = load_checkpoint(last)
        del found["state"]["settings"]
    if results.exists():
        content = json.loads(results.read_text(encoding="utf-8"))
        found["results"] = [content.get(key) for key in ("accuracy", "boxes", "masks")]
    return found


def kill_run(kind: str, folder: Path, kills: int, backbone: str, draws: random.Random) -> tuple[Tally, list[str]]:
    """Kill one kind of run ``kills`` times; what happened, and what is different at its end."""
    whole, killed = folder / f"{kind}-whole", folder / f"{kind}-killed"
    finish(start(kind, whole, 1, backbone))
    tally = Tally()
    while tally.kills < kills:
        process = start(kind, killed, draws.choice((0, 1, 2)), backbone)
        if not kill_once(process, killed, tally, draws):
            finish(process)
            if differences(outcome(whole), outcome(killed), kind):
                break
            shutil.rmtree(killed)  # it came through: once more from the start
            continue
        print(f"{kind}: killed {tally.kills} of {kills}, at step {last_line(killed)}", file=sys.stderr, flush=True)
    if not (killed / "results.json").exists():
        finish(start(kind, killed, 1, backbone))
    return tally, differences(outcome(whole), outcome(killed), kind)


def main() -> None:
    """Print a table, and end with exit code 1 if any run ended differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=51, help="kills in all, shared by the kinds of runs")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--runs", nargs="+", choices=[*METHODS, *EVALUATIONS], default=[*METHODS, *EVALUATIONS])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    draws = random.Random(arguments.seed)
    failed = False
    print("| run | kills | while a checkpoint was written | before the first checkpoint | at the end |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        for name, each in (("train", 30), ("val", 10)):
            labeled_images(images / name, each=each, seed=each)
        coco_folder(images / "coco")
        for kind in arguments.runs:
            share = -(-arguments.kills // len(arguments.runs))
            tally, different = kill_run(kind, Path(folder), share, arguments.backbone, draws)
            failed |= bool(different)
            end = f"{len(different)} differences, the first {different[0]}" if different else "equal bit for bit"
            print(
                f"| {kind} | {tally.kills} | {tally.while_writing} | {tally.before_first_checkpoint} | {end} |",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
