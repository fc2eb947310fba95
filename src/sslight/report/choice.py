"""The page of ``sslight select``: the images to label in their order, and the near-duplicates of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sslight.report.line_chart import Figure, Line, line_chart
from sslight.report.page import SELECT, Html, UInt8Array, element, page, picture


@dataclass(frozen=True)
class ShownChoice:
    """A choice as the page shows it; rows are positions in ``names``.

    ``rows`` and ``shown_duplicates`` are the first images and those of their near-duplicates that are shown, the other
    lists go on to the last one chosen.
    """

    names: Sequence[str]
    rows: Sequence[int]
    represents: Sequence[int]
    duplicates: Sequence[Sequence[int]]
    shown_duplicates: Sequence[Sequence[int]]
    similarity: Sequence[float]
    near_duplicate: float
    thumbnails: Mapping[int, UInt8Array]
    num_wanted: int
    num_labeled: int
    num_unreadable: int


def choice_page(choice: ShownChoice, table: str) -> str:
    """The page; ``table`` is the name of the file that waits for labels."""
    num = len(choice.represents)
    text = (
        f"In the order of {table}, most useful first. Each image is the one that most raises the mean similarity of "
        "all images to their most similar labeled one. If you label fewer, start at the top."
    )
    shown = len(choice.rows)
    heading = "The choice" if shown == num else f"The first {shown:,} of the choice"
    return page(
        f"{num:,} of {len(choice.names):,} images to label",
        element("p", text, class_="soft"),
        *_fewer(choice),
        element("div", *(_figure(*each) for each in _figures(choice)), class_="figures"),
        element("div", element("div", _chart(choice)), class_="charts"),
        element("h2", heading),
        element("p", "Beside each number: how many images it represents, itself included.", class_="soft"),
        element("div", *(_chosen(choice, order) for order in range(shown)), class_="row"),
        *_groups(choice),
        made_by=SELECT,
    )


def _fewer(choice: ShownChoice) -> list[Html]:
    num = len(choice.represents)
    if num == choice.num_wanted:
        return []
    return [
        element(
            "p",
            f"{choice.num_wanted:,} were wanted: all others have labels, are near-duplicates or cannot be read.",
            class_="warn",
        )
    ]


def _figures(choice: ShownChoice) -> list[tuple[str, str]]:
    groups = [len(rows) for rows in choice.duplicates if len(rows)]
    figures = [
        (f"{len(choice.represents):,}", "to label"),
        (f"{sum(choice.represents):,}", "images represented: one of these is most similar to each"),
        (f"{sum(groups):,}", f"near-duplicates of {len(groups):,} of these, left out"),
    ]
    if choice.num_labeled:
        figures.append((f"{choice.num_labeled:,}", "with labels already"))
    if choice.num_unreadable:
        figures.append((f"{choice.num_unreadable:,}", "unreadable, left out"))
    return figures


def _figure(value: str, what: str) -> Html:
    return element("div", element("div", value, class_="value"), element("div", what, class_="soft"))


def _chart(choice: ShownChoice) -> Html:
    points = [(float(number), value) for number, value in enumerate(choice.similarity, 1)]
    figure = Figure("Similarity", "mean cosine of all images to the most similar labeled one", smooth=False)
    return line_chart([Line(points, "--series-1")], figure, "images labeled", len(points))


def _chosen(choice: ShownChoice, order: int) -> Html:
    row = choice.rows[order]
    return _thumbnail(choice, row, element("b", f"{order + 1}"), f" · {choice.represents[order]:,}")


def _groups(choice: ShownChoice) -> list[Html]:
    parts = []
    for order, shown in enumerate(choice.shown_duplicates):
        if shown:
            others = [_thumbnail(choice, row, "") for row in shown]
            more = len(choice.duplicates[order]) - len(shown)
            rest = [element("p", f"and {more:,} more", class_="soft")] if more else []
            first = _thumbnail(choice, choice.rows[order], element("b", f"{order + 1}"))
            parts.append(element("div", first, element("div", *others, *rest, class_="row"), class_="near"))
    if not parts:
        return []
    text = (
        "Left the chosen image, beside it what counts as the same, with a similarity of "
        f"{choice.near_duplicate:.4g} or more. If they are different, set a higher near_duplicate."
    )
    return [element("h2", "Near-duplicates"), element("p", text, class_="soft"), *parts]


def _thumbnail(choice: ShownChoice, row: int, *caption: str) -> Html:
    name = choice.names[row]
    image = picture(choice.thumbnails[row], name, title=name, loading="lazy")
    return element("figure", image, element("figcaption", *caption), class_="thumb")
