"""The numbers of ``sslight views`` as texts, for the terminal and the page alike."""

from collections.abc import Mapping, Sequence
from typing import Any

Content = Mapping[str, Any]


def views_table(recipes: Sequence[Content]) -> list[tuple[str, ...]]:
    """Rows of a label and one text for each recipe."""
    rows: list[tuple[str, ...]] = []

    def row(label: str, text: Any) -> None:
        rows.append((label, *(text(recipe, recipe["statistics"], recipe["workload"]) for recipe in recipes)))

    row("global views", lambda r, s, w: f"{r['views']['num_global']} × {r['views']['global_size']} px")
    row("local views", lambda r, s, w: f"{r['views']['num_local']} × {r['views']['local_size']} px")
    row("share of the image in a global view", lambda r, s, w: _share(s["global_share"]))
    row("share of the image in a local view", lambda r, s, w: _share(s["local_share"], 1))
    row("share of a local view inside a global view", lambda r, s, w: _share(s["local_in_global"]))
    row("local–global pairs without overlap", lambda r, s, w: _percent(s["apart"], 1))
    row("IoU of local and global views", lambda r, s, w: _text(s["local_global_iou"], "{mean:.2f}"))
    row("IoU of two global views", lambda r, s, w: _text(s["global_global_iou"], "{mean:.2f}"))
    row(
        "object size, local : global",
        lambda r, s, w: _text(s["object_size_ratio"], "{median:.2f} × ({low:.2f}–{high:.2f})"),
    )
    matching = "{matching_local_size:.0f} px (nominal {nominal_local_size:.0f})"
    row(
        "local size at which object sizes match",
        lambda r, s, w: _text(s if s["matching_local_size"] else None, matching),
    )
    row("image pixels in a global view", lambda r, s, w: _scaled(s["global_magnification"]))
    row("image pixels in a local view", lambda r, s, w: _scaled(s["local_magnification"]))
    row("pairs in the loss, global–global · local–global", lambda r, s, w: f"{w['global_pairs']} · {w['local_pairs']}")
    row("their weight", lambda r, s, w: f"{_percent(w['global_weight'])} · {_percent(w['local_weight'])}")
    row("weight of one such pair", lambda r, s, w: _pair_weights(w))
    row("view pixels per image", lambda r, s, w: f"{(w['trained_pixels'] + w['target_pixels']) / 1e3:,.0f} k")
    row("relative compute per image", lambda r, s, w: _compute(w))
    return rows


def footnote(content: Content) -> str:
    """What the numbers are, in a few sentences."""
    images = content["images"]
    return (
        f"Means over {content['draws']:,} draws for the sizes of {images['measured']:,} of {images['number']:,} images "
        f"(median {images['median_width']:.0f} × {images['median_height']:.0f} px); parentheses hold the middle 90 %. "
        "Object size is a median: side / √area of the crop, local over global. At the matching size it is 1; nominal "
        "means from the mean scales alone. Compute counts view pixels through the trained and the teacher or key "
        "network as the method uses them, a backward pass as two forward passes; heads are left out."
    )


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _share(d: Content | None, digits: int = 0) -> str:
    return "–" if d is None else f"{_percent(d['mean'], digits)} ({100 * d['low']:.0f}–{100 * d['high']:.0f})"


def _text(d: Content | None, form: str) -> str:
    return "–" if d is None else form.format(**d)


def _scaled(d: Content | None) -> str:
    return "–" if d is None else f"{'enlarged' if d['median'] >= 1 else 'shrunk to'} {d['median']:.2f} ×"


def _pair_weights(w: Content) -> str:
    shares = [(w["global_weight"], w["global_pairs"]), (w["local_weight"], w["local_pairs"])]
    return " · ".join(_percent(weight / pairs, 1) if pairs else "–" for weight, pairs in shares)


def _compute(w: Content) -> str:
    return "another network" if w["relative_compute"] is None else f"{w['relative_compute']:.2f} ×"
