"""``sslight export``: write a backbone as files for other programs and devices."""

from functools import partial
from typing import TYPE_CHECKING, Any

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, columns, say, show
from sslight.config import ExportSettings, build, read_words

if TYPE_CHECKING:
    from sslight.export.checks.agreement import Agreement
    from sslight.export.task import ExportedFile, ExportResult


def export(words: Words = None, as_json: AsJson = False) -> None:
    """Write a backbone for timm, torchvision, ONNX Runtime, LiteRT, ExecuTorch or Core ML, checked and measured."""
    run, typed = read_words("export", words)
    resolved = build(ExportSettings, typed, model=run[0])
    from sslight.api.export import export_with

    result = export_with(resolved, say=partial(say, stderr=True))
    show(result, {**result.content, "path": result.path}, _print_result, as_json=as_json)


def _print_result(result: "ExportResult") -> None:
    pytorch = next((file.pytorch_latency_ms for file in result.files if file.pytorch_latency_ms), {})
    threads = [f"ms, {threads} thread{'s' if threads > 1 else ''}" for threads in pytorch]
    check, classes = result.content["check"], result.content["classes"]
    overlapping = any(file.agreement is not None and file.agreement.multi_label for file in result.files)
    same = ("same labels" if overlapping else "same class") if classes else "kNN"
    headings = ("file", "MB", "cosine", "largest diff.", same, *threads)
    last = ("(PyTorch, float32)", "", "", "", "", *(f"{ms:.1f}" for ms in pytorch.values()))
    # A narrow window may wrap the table, but no figure is cut off.
    say(columns(headings, [*map(_row, result.files), last], numbers=True, no_wrap=True), narrowest=110)
    for file in result.files:
        if file.quantization is not None:
            say(f"{file.path.name}: {file.quantization}")
        if file.agreement is not None and file.agreement.accuracy is not None:
            say(f"{file.path.name}: {_accuracy(file.agreement)}")
    if check["classes"] and not classes:
        names = check["classes"]
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        say(
            "kNN: images whose neighbors vote for the same class; as classes count the "
            f"{len(names)} of data.check ({some})"
        )
    for taken, names in _inputs(result.content["files"]).items():
        say(f"input of {', '.join(names)}: {taken}")
    say(
        f"compared on {check['num_images']} images; latency of one image, median, on "
        f"{result.content['device']['processor']}\n"
        f"counted for one image in float32: {_counted(result.content['cost'])}\n"
        f"written to {result.path}"
    )


def _accuracy(found: "Agreement") -> str:
    """Before and after, and the difference with its interval."""
    assert found.accuracy is not None
    assert found.accuracy_before is not None
    before, change = found.accuracy_before, found.accuracy
    what, of = ("mean average precision", "") if found.multi_label else ("accuracy", " of its classes")
    return (
        f"{what} {before:.1f} → {before + change.value:.1f} % ({change.value:+.1f} points [{change.low:+.1f}, "
        f"{change.high:+.1f}]) on {found.num_labeled} images{of}"
    )


def _counted(cost: dict[str, Any]) -> str:
    """The figures that there are."""
    parts = [f"{cost['parameters'] / 1e6:.2f} M parameters"]
    if cost["multiply_adds"] is not None:
        parts.append(f"{cost['multiply_adds'] / 1e6:.0f} M multiply-adds")
    if cost["peak_activation_bytes"] is not None:
        parts.append(f"{cost['peak_activation_bytes'] / 1e6:.2f} MB of results alive at once")
    return ", ".join(parts)


def _inputs(files: dict[str, Any]) -> dict[str, list[str]]:
    """``uint8 [1, 224, 224, 3]`` → the files that take such arrays."""
    found: dict[str, list[str]] = {}
    for name, facts in files.items():
        if "batch" in facts and "input" in facts:  # weights have no batch, pictures are no arrays
            found.setdefault(f"{facts['input']['dtype']} {facts['input']['shape']}", []).append(name)
    return found


def _row(file: "ExportedFile") -> list[str]:
    found = file.agreement
    if found is None:
        return [file.path.name, f"{file.num_bytes / 1e6:.1f}", "not run: macOS alone can"]
    shares = (found.same_class, found.same_knn_class, found.same_neighbor)  # the first that was measured decides
    same = next(share for share in shares if share is not None)
    return [
        file.path.name,
        f"{file.num_bytes / 1e6:.1f}",
        f"{found.cosine_mean:.5f}",
        f"{found.largest_difference:.2g}",
        f"{same:.1%}",
        *(f"{ms:.1f}" for ms in file.latency_ms.values()),
    ]
