"""Whether the program does on a GPU what it does on a CPU, and how fast: one command, ten minutes, one page.

    python benchmarks/gpu_check.py FOLDER [--minutes 10] [--two] [--tiny] [--only NAME...]

Images are drawn, so nothing is downloaded. Each check is a process of its own, because a GPU that met an error is of no
further use to its process; one that fails, or has no time left, is told and the others go on. After each of them
FOLDER/gpu_check.md and gpu_check.json are written. ``--two`` takes two GPUs instead and looks at what they share.
``--tiny`` does the same with small networks and views on whatever there is, so also on a CPU.
"""

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import sslight
from sslight.methods import DINO
from sslight.train import TrainingStopped, load_checkpoint
from sslight.train.machine import devices

HERE = Path(__file__).parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METHODS: dict[str, dict[str, Any]] = {
    "dino": {},
    "swav": {"swav.queue_size": 0},
    "moco": {"moco.queue_size": 256},
    "moco_muon": {"moco.queue_size": 256, "moco.koleo_weight": 0.03, "optim.name": "muon"},
}
_CLOSE, _SAME_WEIGHTS = 1e-3, 1e-3
_STEPS, _COMPARED = 20, 5


class Check:
    """What one check found: ``ok`` until something is not, sentences and figures for the page."""

    def __init__(self, folder: Path, tiny: bool) -> None:
        self.folder, self.tiny, self.ok = folder, tiny, True
        self.said: list[str] = []
        self.figures: dict[str, Any] = {}

    def expect(self, holds: bool, sentence: str) -> None:
        """Write down a sentence, and whether what it says is as it should be."""
        self.ok = self.ok and holds
        self.said.append(sentence if holds else f"**{sentence}**")

    def attempt(self, name: str, part: Callable[[], object]) -> None:
        """Do a part of the check; the others go on if it fails."""
        try:
            part()
        except Exception as error:  # whatever it is, the page says it
            self.expect(False, f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    def train(self, name: str, method: str = "dino", **changes: Any) -> list[dict[str, Any]]:
        """Pre-train for a few steps; the lines of metrics.jsonl. ``changes`` are dotted names, with __ for a dot."""
        settings: dict[str, Any] = {
            "backbone": "mobilenet_v2",
            "data.train": "synthetic:640",
            "batch_size": 32,
            "steps": _STEPS,
            "devices": "cpu" if DEVICE == "cpu" else "1",
            "log_every": 1,
            "logger": "none",
            "optim.warmup_epochs": 0.1,
            "optim.min_lr": 0,
            **METHODS[method],
        }
        if self.tiny:
            settings |= {"backbone": "test_resnet", "batch_size": 8, "steps": 6, "workers": 0, "views.num_local": 2}
            settings |= {"views.global_size": 32, "views.local_size": 16, "data.train": "synthetic:64"}
        given = {key.replace("__", "."): value for key, value in changes.items()}
        callbacks = given.pop("callbacks", ())
        run, recipe = self.folder / name, f"{method.split('_')[0]}_cnn_sslight"
        sslight.pretrain(recipe, {**settings, **given, "output": run}, callbacks=callbacks)
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def losses(self, name: str, method: str = "dino", **changes: Any) -> list[float]:
        """Of every step of :meth:`train`."""
        return [line["loss"] for line in self.train(name, method, **changes) if "loss" in line]


def difference(ours: list[float], theirs: list[float]) -> float:
    """Largest relative one of the first losses."""
    return max(abs(a - b) / abs(b) for a, b in list(zip(ours, theirs, strict=False))[:_COMPARED])


def weights_difference(one: Path, other: Path) -> float:
    """Largest of two runs' last weights, as a share of the largest weight of each tensor."""
    models = [load_checkpoint(run / "checkpoints" / "last.pt")["model"] for run in (one, other)]
    pairs = ((models[0][name], models[1][name]) for name in models[0] if torch.is_tensor(models[0][name]))
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs if a.is_floating_point())


# ---- One GPU ------------------------------------------------------------------------------------------------


def losses(check: Check) -> None:
    """All methods in three precisions: float32 as on the CPU, the others finite and near."""
    torch.backends.cudnn.allow_tf32 = False
    for method in METHODS:
        enough = sslight.Callback(on_log=lambda step, figures: step >= _COMPARED)
        on_cpu = check.losses(f"{method}-cpu", method, devices="cpu", callbacks=[enough])
        for precision in ("32", "bf16", "16") if DEVICE == "cuda" else ("32", "bf16"):

            def compare(method: str = method, precision: str = precision, on_cpu: list[float] = on_cpu) -> None:
                found = check.losses(f"{method}-{precision}", method, precision=precision)
                check.figures[f"{method} {precision}"] = found
                worst, allowed = difference(found, on_cpu), _CLOSE if precision == "32" else 0.05
                fine = worst <= allowed and all(map(math.isfinite, found))
                check.expect(fine, f"{method} {precision}: first losses within {worst:.1e} of the CPU's ({allowed:g})")

            check.attempt(f"{method} {precision}", compare)


def compiled(check: Check) -> None:
    """The same with compiled backbones, against themselves uncompiled; ResNet-18, which compiles fastest."""
    if DEVICE == "cpu":
        devices.compilation_gains_nothing = lambda placement: False
        torch.compile = partial(torch.compile, backend="eager")
    network = {} if check.tiny else {"backbone": "resnet18"}
    modes = [True] if check.tiny else [True, "reduce-overhead"]
    for method, precision, mode in product(("dino", "swav", "moco"), ("bf16", "32"), modes):
        if mode is not True and (method, precision) != ("dino", "bf16"):
            continue

        def compare(method: str = method, precision: str = precision, mode: Any = mode) -> None:
            name = f"{method}-{precision}"
            plain = check.losses(f"{name}-plain-{mode}", method, precision=precision, **network)
            start = time.perf_counter()
            found = check.losses(f"{name}-{mode}", method, precision=precision, compile=mode, **network)
            worst, allowed = difference(found, plain), _CLOSE if precision == "32" else 0.05
            seconds = time.perf_counter() - start
            sentence = f"{method} {precision} compile={mode}: within {worst:.1e} ({allowed:g}), {seconds:.0f} s in all"
            check.expect(worst <= allowed and all(map(math.isfinite, found)), sentence)

        check.attempt(f"{method} {precision} compile={mode}", compare)


def memory(check: Check) -> None:
    """The modes of grad_checkpointing: the same losses, less memory."""
    peaks: dict[str, float] = {}
    plain: list[float] = []
    for mode in (False, "norms", True):
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
        found = check.losses(f"memory-{mode}", grad_checkpointing=mode, precision="bf16" if DEVICE == "cuda" else "32")
        plain = plain or found
        peaks[str(mode)] = torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else 0.0
        worst = difference(found, plain)
        check.expect(
            worst <= 0.02, f"grad_checkpointing={mode}: losses within {worst:.1e}, {peaks[str(mode)]:,.0f} MiB"
        )
    check.figures["peak MiB"] = peaks
    if DEVICE == "cuda":
        check.expect(peaks["norms"] < 0.8 * peaks["False"], "norms takes less than 0.8 of the memory")


def waiting(check: Check) -> None:
    """Between log steps the host must not wait for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        for method in ("dino", "moco_muon"):
            check.train(f"waiting-{method}", method, log_every=10, steps=40 if not check.tiny else 6)
    where = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchronizing CUDA" in str(w.message))
    check.figures["waits"] = dict(where)
    often = {line: number for line, number in where.items() if number > 16}  # 4 log steps, start and end, of two runs
    check.expect(not often, f"waits at {len(where)} lines; more often than at log steps: {often or 'none'}")


def profile(check: Check) -> None:
    """The share of a step in which the GPU works, its longest kernels, and copies into another layout."""
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])
    profiler = torch.profiler.profile(activities=activities)
    first, last = (3, 5) if check.tiny else (8, 18)
    began: list[float] = []

    def look(step: int, figures: object) -> None:
        if step == first:
            profiler.start()
            began.append(time.perf_counter())
        elif step == last:
            profiler.stop()
            began.append(time.perf_counter())

    precision = "bf16" if DEVICE == "cuda" else "32"
    size: dict[str, Any] = {} if check.tiny else {"batch_size": 128, "data__train": "synthetic:2560"}
    check.train("profile", precision=precision, callbacks=[sslight.Callback(on_log=look)], **size)
    events = profiler.key_averages()
    spent = {e.key: (e.self_device_time_total if DEVICE == "cuda" else e.self_cpu_time_total) / 1e6 for e in events}
    busy, wall = sum(spent.values()), began[1] - began[0]
    check.figures["longest"] = longest = sorted(spent.items(), key=lambda item: -item[1])[:12]
    layouts = {name: s for name, s in spent.items() if "nchwtonhwc" in name.lower() or "nhwctonchw" in name.lower()}
    check.expect(busy > 0, f"busy for {busy / wall:.0%} of {wall:.2f} s, of {last - first} steps")
    check.said += [f"{seconds / busy:.0%} {name[:90]}" for name, seconds in longest]
    check.expect(not layouts, f"kernels that change the layout: {layouts or 'none'}")


def resume(check: Check) -> None:
    """SIGTERM in the middle and the same command again: the weights of the run that was left alone."""
    torch.backends.cudnn.deterministic = True

    def stop(step: int, figures: object) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    check.train("whole")
    try:
        check.train("parts", callbacks=[sslight.Callback(on_log=stop)])
        check.expect(False, "SIGTERM was not heard")
    except TrainingStopped as stopped:
        check.expect("after step" in str(stopped), str(stopped).partition(";")[0])
    check.train("parts", resume=True)
    worst = weights_difference(check.folder / "parts", check.folder / "whole")
    check.expect(worst <= _SAME_WEIGHTS, f"weights within {worst:.1e} of the whole run's")


def bench(check: Check) -> None:
    """Milliseconds, images a second and peak memory of a step against a step written plainly, with floors."""
    backbones = ("test_resnet",) if check.tiny else ("mobilenet_v2", "resnet18", "vit_tiny")
    words = [sys.executable, str(HERE / "step.py"), "--device", DEVICE, "--json", "--floor"]
    tiny = ["views.global_size=32", "views.local_size=16", "views.num_local=2", "dino.head_output_dim=64"]
    words += (
        ["--warmup", "1", "--rounds", "1", "--steps", "1", "--set", *tiny]
        if check.tiny
        else ["--rounds", "4", "--steps", "5"]
    )
    for size, backbone in product((4,) if check.tiny else (128, 64, 256), backbones):
        curves = [] if check.tiny or size != 64 else ["--curves", str(check.folder / f"{backbone}.png")]
        own = [*words, "--recipe", "dino_cnn_sslight", "--backbones", backbone, "--batch-size", str(size), *curves]

        def run(own: list[str] = own, backbone: str = backbone, size: int = size) -> None:
            found = subprocess.run(own, capture_output=True, text=True, check=False, timeout=900 if check.tiny else 180)
            if found.returncode:
                raise RuntimeError((found.stderr.strip().splitlines() or ["no word"])[-1])
            result = json.loads(found.stdout)[0]
            check.figures[f"{backbone} {size}"] = result
            for side, figures in result["sides"].items():
                floor, seconds = figures["floor"], figures["ms"] / 1000
                shares = (floor[key] / seconds for key in ("flop_seconds", "byte_seconds"))
                check.said.append(
                    f"{backbone}, {size} images, {side}: {figures['ms']:.0f} ms, {size / seconds:.0f} images/s, "
                    f"{figures['peak_mib']:,.0f} MiB, {figures['speedup']:.2f} × original; floors "
                    f"{next(shares):.0%} of arithmetic, {next(shares):.0%} of memory"
                )
            check.expect(result["largest_loss_difference"] < 0.05, "float32 losses near the original's")

        check.attempt(f"{backbone} {size}", run)


def afterwards(check: Check) -> None:
    """Measure a backbone on the GPU as on the CPU, and export it."""
    check.train("exported")
    backbone = check.folder / "exported" / "backbone.safetensors"
    size = 32 if check.tiny else 128
    images = {"data.train": "synthetic:200", "data.val": "synthetic:100:val", "image_size": size}
    found = {}
    for device in {DEVICE, "cpu"}:
        how = {**images, "devices": "cpu" if device == "cpu" else "1", "cache": check.folder / f"cache-{device}"}
        sslight.evaluate_backbone("knn", backbone, how, output=check.folder / f"knn-{device}")
        content = json.loads((check.folder / f"knn-{device}" / "results.json").read_text(encoding="utf-8"))
        found[device] = content["accuracy"]["top1"]
    near = max(found.values()) - min(found.values()) <= 2.0
    check.expect(near, "kNN top-1 " + ", ".join(f"{accuracy:.1f} on {device}" for device, accuracy in found.items()))
    files = sslight.export_backbone(
        backbone, {"data.check": "synthetic:32:val", "image_size": size}, format=["safetensors"], runs=3,
        output=check.folder / "export",
    )  # fmt: skip
    check.expect(bool(files), "exported")


# ---- Two GPUs -----------------------------------------------------------------------------------------------


def _launched(check: Check, case: str) -> None:
    """Start a case of :data:`CASES` in two processes and take over what it found."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    words += ["--rdzv-endpoint=localhost:0", __file__, str(check.folder), "--case", case]
    words += ["--tiny"] if check.tiny else []
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900 if check.tiny else 240)
    result = check.folder / f"{case}.json"
    if found.returncode or not result.exists():
        raise RuntimeError(found.stderr[-2000:] or "no word")
    content = json.loads(result.read_text(encoding="utf-8"))
    check.ok = check.ok and content["ok"]
    check.said += [f"{case}: {sentence}" for sentence in content["said"]]


def shared(check: Check) -> None:
    """Each case of what several processes do together."""
    for case in CASES:
        check.attempt(case, partial(_launched, check, case))


def _two(check: Check, name: str, method: str = "dino", **changes: Any) -> list[float]:
    return check.losses(name, method, devices="cpu" if DEVICE == "cpu" else "auto", **changes)


def _accumulation(check: Check) -> None:
    worst = difference(
        _two(check, "parts2", accumulate=2, backbone="test_vit"), _two(check, "parts1", backbone="test_vit")
    )
    check.expect(worst <= 0.02, f"two parts of a batch within {worst:.1e} of one")


def _checkpointing(check: Check) -> None:
    plain = _two(check, "ddp-False")
    for mode in ("norms", True):
        worst = difference(_two(check, f"ddp-{mode}", grad_checkpointing=mode), plain)
        check.expect(worst <= _CLOSE, f"grad_checkpointing={mode} within {worst:.1e}")
    counts = [
        {
            int(v)
            for k, v in load_checkpoint(check.folder / f"ddp-{m}/checkpoints/last.pt")["model"].items()
            if "_tracked" in k
        }
        for m in (False, True)
    ]
    check.expect(counts[0] == counts[1], f"batches counted {sorted(counts[0])} and, checkpointed, {sorted(counts[1])}")


def _synchronized(check: Check) -> None:
    for method in METHODS:
        found = _two(check, f"two-{method}", method)
        check.expect(all(map(math.isfinite, found)), f"{method}: {found[0]:.4f} to {found[-1]:.4f}")


def _frozen(check: Check) -> None:
    name, key = "frozen", "method.student.head.last_layer.weight_v"
    _two(check, name, dino__freeze_last_layer_epochs=100, steps=4)
    _two(check, f"{name}-less", dino__freeze_last_layer_epochs=100, steps=2)
    ends = [load_checkpoint(check.folder / n / "checkpoints/last.pt")["model"][key] for n in (name, f"{name}-less")]
    check.expect(torch.equal(*ends), "a frozen last layer stays to the bit")


def _nan(check: Check) -> None:
    forward, calls = DINO.forward, [0]

    def spoiled(self: DINO, *arguments: Any) -> Any:
        out = forward(self, *arguments)
        calls[0] += 1
        if calls[0] == 4 and int(os.environ.get("RANK", "0")) == 1:
            out = type(out)(out.loss * torch.nan, out.scalars, out.features)
        return out

    DINO.forward = spoiled  # type: ignore[method-assign, assignment]
    found = _two(check, "nan", checkpoint__every_steps=1, steps=6)
    note = (check.folder / "nan" / "nonfinite.jsonl").read_text(encoding="utf-8")
    check.expect(
        '"skipped"' in note and all(map(math.isfinite, found)), "NaN of the second process: its batch is skipped"
    )


CASES: dict[str, Callable[[Check], None]] = {
    "synchronized": _synchronized,
    "accumulation": _accumulation,
    "frozen": _frozen,
    "checkpointing": _checkpointing,
    "nan": _nan,
}
CHECKS: dict[str, Callable[[Check], None]] = {
    "losses": losses,
    "memory": memory,
    "waiting": waiting,
    "resume": resume,
    "profile": profile,
    "afterwards": afterwards,
    "bench": bench,
    "compiled": compiled,
}


# ---- The page -----------------------------------------------------------------------------------------------


def write(folder: Path, results: dict[str, dict[str, Any]], started: float) -> None:
    """The page and the figures, with what is known so far."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    about = {
        "device": ", ".join(gpus) or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sslight": sslight.__version__,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    lines = ["# GPU check", "", ", ".join(f"{name} {value}" for name, value in about.items()), ""]
    lines += ["| check | | seconds |", "|---|---|---|"]
    lines += [
        f"| {name} | {'well' if r['ok'] else '**not well**'} | {r['seconds']:.0f} |" for name, r in results.items()
    ]
    for name, result in results.items():
        lines += ["", f"## {name}", "", *(f"- {sentence}" for sentence in result["said"])]
    (folder / "gpu_check.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "gpu_check.json").write_text(json.dumps({"about": about, "checks": results}, indent=1), encoding="utf-8")


def run_one(name: str, folder: Path, seconds: float, *, tiny: bool) -> dict[str, Any]:
    """A check in a process of its own; what it found before it ended, whatever its end."""
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, __file__, str(own), "--check", name, *(["--tiny"] if tiny else [])]
    start, end = time.monotonic(), ""
    with (own / "output.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=max(1.0, seconds))
            end = f"it ended with {code}, see {name}/output.txt" if code else ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end = "its time was over"
    file = own / "found.json"
    result: dict[str, Any] = {"ok": False, "said": [], "figures": {}}
    if file.exists():
        result = json.loads(file.read_text(encoding="utf-8"))
    if end:
        result = {**result, "ok": False, "said": [*result["said"], f"**{end}**"]}
    return {**result, "seconds": time.monotonic() - start}


def found_so_far(check: Check, file: Path) -> None:
    """Keep what a check has found."""
    file.write_text(json.dumps({"ok": check.ok, "said": check.said, "figures": check.figures}), encoding="utf-8")


def main() -> None:
    """Start the checks one after the other, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--two", action="store_true", help="two GPUs (or CPU processes), and what they share")
    parser.add_argument("--tiny", action="store_true", help="small networks and views")
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="these checks only")
    parser.add_argument("--check", choices=[*CHECKS, "shared"], help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.check or given.case:
        check = Check(given.folder, given.tiny)
        said = check.said

        class Kept(list[str]):  # every sentence is kept at once, or a later crash would take it along
            def append(self, sentence: str) -> None:
                super().append(sentence)
                found_so_far(check, given.folder / "found.json")

        if given.check:
            check.said = Kept(said)
            check.attempt(given.check, lambda: (CHECKS | {"shared": shared})[given.check](check))
            found_so_far(check, given.folder / "found.json")
            return
        check.attempt(given.case, lambda: CASES[given.case](check))
        if int(os.environ["RANK"]) == 0:
            found_so_far(check, given.folder / f"{given.case}.json")
        if dist.is_initialized():
            dist.destroy_process_group()
        return
    started, results = time.monotonic(), dict[str, dict[str, Any]]()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in ["shared"] if given.two else given.only or CHECKS:
        left = 60 * given.minutes - (time.monotonic() - started)
        results[name] = (
            run_one(name, given.folder, left, tiny=given.tiny)
            if left > 5
            else {"ok": False, "said": ["no time was left"], "figures": {}, "seconds": 0.0}
        )
        print("\n  ".join([name, "well" if results[name]["ok"] else "NOT WELL", *results[name]["said"]]), flush=True)
        write(given.folder, results, started)
    sys.exit(not all(result["ok"] for result in results.values()))


if __name__ == "__main__":
    main()
