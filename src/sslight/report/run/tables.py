"""Tables of the report: settings, results, cost, unreadable images, environment."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sslight.config import flat_settings, load_recipe
from sslight.report.page import Html, breakable, element, table
from sslight.report.run.files import Run
from sslight.report.run.summary import METHOD_NAMES, duration

Content = Mapping[str, Any]

NOT_COMPARED = {"output", "resume"}
_OF_EVERY_RUN = {"data.train", "data.val"}  # a recipe cannot know them
_LISTED = 20


def settings_tables(runs: Sequence[Run], names: Sequence[Html]) -> list[Html]:
    """What differs between runs (or from the recipe, of a single one), and all settings, folded away."""
    parts: list[Html] = []
    if len(runs) > 1:
        rows = [row for row in _rows(runs) if row[0] not in NOT_COMPARED and len(set(row[1:]) - {"–"}) > 1]
        parts.append(table(["", *names], rows) if rows else element("p", "All settings are the same."))
    else:
        parts += _changes(runs[0])
    every = table(["", *names] if len(runs) > 1 else ["setting", "value"], _rows(runs))
    return [*parts, element("details", element("summary", "All settings"), every)]


def _rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """A row for each setting that matters to one of the runs; ``–`` where it does not matter or is not known."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    rows = [(key, *(setting_value(run, key) for run in runs)) for key in keys]
    return [row for row in rows if set(row[1:]) != {"–"}]


def setting_value(run: Run, key: str) -> str:
    """A setting as text; ``–`` where it does not matter to the run's method or is not known."""
    section = key.partition(".")[0]
    if key not in run.settings or (section in METHOD_NAMES and section != run.settings.get("method")):
        return "–"
    return setting_text(run.settings[key])


def setting_text(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value[0] if len(value) == 1 else f"[{', '.join(value)}]"
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def _changes(run: Run) -> list[Html]:
    """Where the run differs from the recipe that its command names."""
    words = command_of(run)
    after = words[words.index("pretrain") + 1 :] if "pretrain" in words else []
    name = next((word for word in after if "=" not in word and not word.startswith("-")), None)
    if name is None:
        return []
    try:
        values = flat_settings(load_recipe(name).model_dump(mode="json"))
    except ValueError:
        return []
    rows = [
        (key, setting_text(values[key]), setting_text(value))
        for key, value in run.settings.items()
        if key in values.keys() - NOT_COMPARED - _OF_EVERY_RUN and value != values[key]
        if setting_value(run, key) != "–"
    ]
    if not rows:
        return [element("p", f"The same as in the recipe {name}.")]
    return [element("p", "Different from the recipe ", element("code", name), ":"), table(["", name, "this run"], rows)]


def command_of(run: Run) -> list[str]:
    """The words of the command that started it."""
    words = run.environment.get("command")
    return [str(word) for word in words] if isinstance(words, list) else []


def results_table(
    rows: Sequence[Content], multi_label: Sequence[Content], detections: Sequence[Content], note: str
) -> list[Html]:
    """Results from ``compare_results``, ``compare_multi_label`` and ``compare_detections``.

    ``note`` says where published ones come from.
    """
    parts: list[Html] = []
    if rows:
        head = ["", "backbone", "weights", "protocol", "data", "top-1 [%], 95 % interval", "top-5 [%]"]
        parts.append(table(head, [_told_apart(row, ["protocol", "data"], ["top1", "top5"]) for row in rows]))
    if multi_label:
        head = ["", "backbone", "weights", "protocol", "data", "mean average precision [%], 95 % interval"]
        parts.append(table(head, [_told_apart(row, ["protocol", "data"], ["map"]) for row in multi_label]))
    if detections:
        head = ["", "backbone", "weights", "data", "box AP", "box AP50", "mask AP", "mask AP50"]
        figures = ["box_ap", "box_ap50", "mask_ap", "mask_ap50"]
        parts.append(table(head, [_told_apart(row, ["data"], figures) for row in detections]))
    if any(row["origin"] == "published" for row in [*rows, *detections]):
        parts.append(element("p", note, class_="soft"))
    return parts


def _told_apart(row: Content, texts: Sequence[str], figures: Sequence[str]) -> list[str]:
    """Published figures are set in italics, so that nobody takes them for measurements of this program."""
    cells = [row["backbone"], breakable(row["weights"]), *(row[key] for key in texts)]
    for key in figures:
        interval = row.get(f"{key}_interval")
        cells.append("" if row[key] is None else f"{row[key]:.1f}")
        cells[-1] += "" if interval is None else " [{:.1f}, {:.1f}]".format(*interval)
    if row["origin"] == "measured":
        return [element("b", "measured here"), *cells]
    return [element("i", "published"), *(element("i", cell, class_="soft") if cell else cell for cell in cells)]


def cost_table(summaries: Sequence[Content], names: Sequence[Html]) -> list[Html]:
    """Time, throughput and GPU hours of each run."""
    costs = [summary["cost"] for summary in summaries]
    if not any(costs):
        return []

    def row(label: str, text: Any) -> list[str]:
        return [label, *("–" if cost is None else text(cost) for cost in costs)]

    rows = [
        row("time in training steps", lambda c: duration(c["seconds"])),
        row("images (each with all its views)", lambda c: f"{c['images']:,}"),
        row("throughput", lambda c: f"{c['images_per_second']:,.0f} images/s"),
        row("waiting for data", lambda c: f"{100 * c['data_wait_share']:.1f} % of the time"),
        row("computed on", lambda c: _counted(c["gpus"]) or "CPU"),
    ]
    if any(cost and cost["gpus"] for cost in costs):
        rows.append(row("GPU hours", lambda c: "–" if c["gpu_hours"] is None else f"{c['gpu_hours']:.2f}"))
    note = (
        "From the measured throughput. It excludes measurements, checkpoints, and steps that were lost and repeated. "
        "GPUs are those of the machine where the run was started."
    )
    return [table(["", *names], rows), element("p", note, class_="soft")]


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in Counter(names).items())


def bad_images_part(runs: Sequence[Run], names: Sequence[Html]) -> list[Html]:
    """Unreadable images by reason, and the first ones."""
    parts: list[Html] = []
    for run, name in zip(runs, names, strict=True):
        if not run.bad_images:
            continue
        parts += [element("h3", name)] if len(runs) > 1 else []
        reasons = Counter(row.get("reason", "") for row in run.bad_images).most_common(5)
        counted = "; ".join(f"{count:,} × {reason}" for reason, count in reasons)
        number = len(run.bad_images)
        what = "1 image could not be read and was" if number == 1 else f"{number:,} images could not be read and were"
        parts.append(element("p", f"{what} replaced: {counted}."))
        rows = [[row.get(key, "") for key in ("name", "reason", "count")] for row in run.bad_images[:_LISTED]]
        parts.append(table(["image", "reason", "met"], rows))
        parts += _rest(run.bad_images, "bad_images.csv")
    return parts


def nonfinite_part(runs: Sequence[Run], names: Sequence[Html]) -> list[Html]:
    """Steps at which the loss or a gradient was not finite, and what was done."""
    rows = [
        [
            *([name] if len(runs) > 1 else []),
            f"{record['step']:,}",
            str(record.get("what", "")),
            str(record.get("action", "")),
            f"{len(record['indices']):,}" if isinstance(record.get("indices"), list) else "",
        ]
        for run, name in zip(runs, names, strict=True)
        for record in run.nonfinite
    ]
    if not rows:
        return []
    head = [*([""] if len(runs) > 1 else []), "step", "what", "done", "images"]
    return [table(head, rows[:_LISTED]), *_rest(rows, "nonfinite.jsonl")]


def _rest(rows: Sequence[Any], file: str) -> list[Html]:
    more = len(rows) - _LISTED
    return [element("p", f"and {more:,} more in {file}.", class_="soft")] if more > 0 else []


def environment_part(runs: Sequence[Run], names: Sequence[Html]) -> list[Html]:
    """The commands, and machine and versions of each run."""
    parts: list[Html] = []
    for run, name in zip(runs, names, strict=True):
        words = command_of(run)
        if words:
            command = shlex.join(["sslight" if words[0].endswith(("__main__.py", "sslight")) else words[0], *words[1:]])
            parts += [element("p", name)] if len(runs) > 1 else []
            parts.append(element("pre", element("code", command)))
    flat = [_flat(run.environment) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [[key, *(one.get(key, "–") for one in flat)] for key in keys]
    return [*parts, table(["", *names] if len(runs) > 1 else ["", "version"], rows)] if rows else parts


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    packages = environment.get("packages")
    flat = {
        key.replace("_", " "): _counted(list(map(str, value))) or "none" if isinstance(value, list) else str(value)
        for key, value in environment.items()
        if key not in ("command", "packages")
    }
    if isinstance(packages, dict):
        flat |= {str(key): str(value) for key, value in packages.items() if value is not None}
    return flat
