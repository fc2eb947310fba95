"""``sslight finetune``: train a classifier from a backbone and labels."""

from shlex import quote
from typing import TYPE_CHECKING, Any

from sslight.cli.grammar import Words
from sslight.cli.terminal import AsJson, facts, say, show
from sslight.config import BEGINNINGS, FinetuneSettings, build, read_words

if TYPE_CHECKING:
    from sslight.api.finetune_run import FinetuneResult


def finetune(words: Words = None, as_json: AsJson = False) -> None:
    """Train a classifier from a backbone with labeled images, and measure it.

    Labels are class folders, a table of name and label, or one with a column of 0 and 1 for each label.
    """
    checkpoint, typed = read_words("finetune", words)
    resolved = build(FinetuneSettings, typed, model=checkpoint[0])
    from sslight.api.finetune import finetune_with

    result = finetune_with(resolved)
    if result is not None:  # None in all processes but the first
        show(result, {**result.content, "path": result.path}, _print_result, as_json=as_json)


def _print_result(result: "FinetuneResult") -> None:
    content = result.content
    details, data, checkpoint = content["details"], content["data"], content["checkpoint"]
    ranked = sorted(content["per_class"].items(), key=lambda item: float(item[1]["accuracy"]))
    worst = ", ".join(f"{name} {one['accuracy']:.0f} %" for name, one in ranked[:3])
    mixed = [f"{one['class']} as {one['taken_for']} {one['images']:,} ×" for one in content.get("confusions", [])[:3]]
    facts(
        [
            ("backbone", f"{checkpoint['backbone']} ({checkpoint['notes']['weights']})"),
            ("images", f"{data['train']['num_images']:,} labeled, {data['val']['num_images']:,} validation"),
            ("training", f"{details['epochs']} epochs, {details['steps']:,} steps of {details['batch_size']}"),
            ("epoch kept", _kept(details)),
            ("accuracy", _accuracy(content["accuracy"], details)),
            ("lowest", worst),
            ("mistaken", ", ".join(mixed) or None),
            ("classifier", str(result.classifier)),
            ("result", str(result.path)),
        ]
    )
    for note in content["notes"]:
        say(f"note: {note}")
    say(f"\nUse it:\n  sslight predict {quote(str(result.output))} IMAGES output=predictions.csv")
    say(f"  sslight export {quote(str(result.output))} data.check=IMAGES format=onnx")


def _kept(details: dict[str, Any]) -> str:
    name = next((name for name in details if name.startswith("holdout_")), None)
    if name is None:
        return "the last (holdout=0)"
    what = "mAP" if name.endswith("map") else "right"
    found = f"{details[name]:.1f} % {what}"
    if details[f"best_{name}"] > details[name]:
        found += f"; within one standard error of the best, {details[f'best_{name}']:.1f} %"
    epoch = str(details["chosen_epoch"])
    if epoch == "0":
        epoch += f" ({BEGINNINGS[details['head_init'] or 'random']}, before the first step)"
    return f"{epoch}, by {details['num_held_out']:,} held-out images ({found})"


def _accuracy(accuracy: dict[str, Any], details: dict[str, Any]) -> str:
    """``61.2 % [60.1, 62.3] of 1,500 images; 60.8 % as the mean of classes``."""
    name = "map" if "map" in accuracy else "top1"
    low, high = accuracy[f"{name}_interval"]
    text = f"{accuracy[name]:.1f} % [{low:.1f}, {high:.1f}] of {accuracy['num_images']:,} images"
    if name == "map":
        return f"mean average precision {text}"
    return f"{text}; {details['mean_per_class']:.1f} % as the mean of classes"
