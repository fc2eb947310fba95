"""``sslight select`` as a Python function: which images to label."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sslight.api.file_pass import FilePass, Passed, images_at, new_result, open_file
from sslight.config import SelectSettings
from sslight.data import BadImage, Source, image_batches, labeled_rows, printable
from sslight.files import check_new, whole_file, write_whole
from sslight.finetuning.choice import Choice, choose_images
from sslight.report.choice import ShownChoice, choice_page
from sslight.train.machine.devices import own_share
from sslight.train.record.progress import Progress

_SHOWN, _SHOWN_DUPLICATES, _THUMBNAIL = 300, 3, 112  # images, of each, px


@dataclass(frozen=True)
class Selection:
    """Images to label, the most useful first: the first ones are a choice of their own.

    Attributes:
        names: Of the K images.
        represents: Of each, of how many images (itself among them) it is the one most alike of those that are chosen
            or have labels.
        duplicates: Of each, the names of its near-duplicates, none of which is chosen.
        similarity: Mean cosine of all images to the one most alike of the first 1, 2, ..., K, and of those that have
            labels.
        near_duplicate: The similarity from which on two images were not both chosen.
        num_images: How many readable images there are.
        unreadable: The images that are left out, with the reason for each.
        page: The page that shows the choice, if a file was to be written.
        unmatched: The names with a label in ``labeled`` that no image has.
    """

    names: tuple[str, ...]
    represents: tuple[int, ...]
    duplicates: tuple[tuple[str, ...], ...]
    similarity: tuple[float, ...]
    near_duplicate: float
    num_images: int
    unreadable: tuple[BadImage, ...]
    page: Path | None = None
    unmatched: tuple[str, ...] = ()


def select(
    images: str | Path | Sequence[str | Path],
    checkpoint: str | Path,
    *,
    num: int = 300,
    output: str | Path | None = None,
    labeled: str | Path | None = None,
    near_duplicate: float | None = None,
    network: str = "student",
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    devices: str = "auto",
    tar_image: str | None = None,
) -> Selection:
    """Which images to label: those that most raise the mean similarity of all images to their most similar labeled one.

    ``select("images", "runs/first", num=300, output="to_label.csv")``

    The gain over a random choice is in ``benchmarks/results/labels.md``.

    Args:
        images: As for :func:`embed`, like all that is not listed here.
        num: Images to choose; fewer where all others have labels or are near-duplicates. The first ones of the choice
            are what a smaller ``num`` gives (of more than 10,000 images while ``num`` is at most 2,000).
        output: A new ``.csv`` file to write, with the columns ``name``, ``label`` (empty), ``order`` and
            ``represents``; a page that shows the choice is written beside it. Else as for :func:`embed`.
        labeled: A table ``name,label`` (also an earlier ``output`` in which labels were filled in) or a list of the
            images that have labels: these and their near-duplicates are not chosen.
        near_duplicate: Similarity from which on two images are not both chosen: the cosine of their features after
            the mean of all is subtracted, above 0 and at most 1. None: what lies five times closer than most images
            lie to the one most alike.

    Raises:
        ValueError: as for :func:`embed`, or there are not more images than ``num``, or the table names none of them.
    """
    if (started := own_share().count) > 1:
        raise ValueError(f"select works in one process, and {started} were started: leave out torchrun or srun.")
    output = new_result(output, SelectSettings.suffixes)
    page = None if output is None else output.with_suffix(".html")
    if page is not None:
        check_new(page, "output")
    source = images_at(images, tar_image)
    if not 1 <= num < len(source):
        raise ValueError(f"num={num} cannot be chosen from {len(source):,} images: choose 1 to {len(source) - 1:,}.")
    known, unmatched = (np.zeros(0, np.int64), []) if labeled is None else labeled_rows(source, str(labeled), "labeled")
    if unmatched:
        Progress(shown=output is not None).say(
            f"labeled={labeled}: {len(unmatched):,} of {len(unmatched) + len(known):,} names have no image (first: "
            f"{printable(unmatched[0])}; a name there is {printable(source.name(0))})"
        )
    opened = open_file(checkpoint, network=network, image_size=image_size, devices=devices)
    through = FilePass(opened, source, (0,), batch_size, workers)
    with through.kept(output):
        passed = through.whole(output)
        known = np.flatnonzero(np.isin(passed.rows, known))  # of the readable ones
        choice = choose_images(passed.values[0], num, labeled=known, near_duplicate=near_duplicate)
        if not len(choice.rows):
            raise ValueError(
                f"labeled={labeled}: all other images are near-duplicates of these, so that nothing is left to label."
            )
        if output is not None:
            assert page is not None
            write_whole(page, choice_page(_shown(choice, passed, source, num, len(known)), printable(output.name)))
            _write_table(output, choice, passed.names)
    return Selection(
        tuple(passed.names[row] for row in choice.rows),
        tuple(choice.represents.tolist()),
        tuple(tuple(passed.names[row] for row in rows) for rows in choice.duplicates),
        tuple(choice.similarity.tolist()),
        choice.near_duplicate,
        len(passed.names),
        passed.unreadable,
        page,
        tuple(unmatched),
    )


def _write_table(path: Path, choice: Choice, names: Sequence[str]) -> None:
    with whole_file(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "label", "order", "represents"])
        for order, (row, represents) in enumerate(zip(choice.rows, choice.represents.tolist(), strict=True), 1):
            writer.writerow([printable(names[row]), "", order, represents])


def _shown(choice: Choice, passed: Passed, source: Source, num: int, num_labeled: int) -> ShownChoice:
    rows, groups = choice.rows[:_SHOWN], [rows[:_SHOWN_DUPLICATES] for rows in choice.duplicates[:_SHOWN]]
    wanted = np.unique(np.concatenate([rows, *groups]))
    pictures = _thumbnails(source, passed.rows[wanted])
    return ShownChoice(
        names=list(map(printable, passed.names)),
        rows=rows.tolist(),
        represents=choice.represents.tolist(),
        duplicates=[rows.tolist() for rows in choice.duplicates],
        shown_duplicates=[rows.tolist() for rows in groups],
        similarity=choice.similarity.tolist(),
        near_duplicate=choice.near_duplicate,
        thumbnails=dict(zip(wanted.tolist(), pictures, strict=True)),
        num_wanted=num,
        num_labeled=num_labeled,
        num_unreadable=len(passed.unreadable),
    )


def _thumbnails(source: Source, indices: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
    batches = image_batches(source, size=_THUMBNAIL, resize=_THUMBNAIL, batch_size=64, workers=0, indices=indices)
    return [image.permute(1, 2, 0).numpy().copy() for images, _, _ in batches for image in images]
