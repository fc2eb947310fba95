"""What the page of a choice says and shows."""

import re
from dataclasses import replace

import numpy as np

from sslight.report.choice import ShownChoice, choice_page
from sslight.report.page import SELECT

CHOICE = ShownChoice(
    names=[f"{number}.png" for number in range(9)],
    rows=[4, 0],
    represents=[5, 2, 1],
    duplicates=[[1, 2, 3, 5, 6], [], []],
    shown_duplicates=[[1, 2, 3], []],
    similarity=[0.2, 0.5, 0.6],
    near_duplicate=0.912345,
    thumbnails={row: np.full((8, 8, 3), 20 * row, np.uint8) for row in (0, 1, 2, 3, 4)},
    num_wanted=3,
    num_labeled=1,
    num_unreadable=0,
)


def test_the_page_shows_the_first_of_the_choice_in_order_and_what_counts_as_the_same() -> None:
    page = choice_page(CHOICE, "to_label.csv")
    assert f'content="{SELECT} (one page)"' in page
    assert "<h1>3 of 9 images to label</h1>" in page
    assert "The first 2 of the choice" in page
    choice, duplicates = page.split("Near-duplicates</h2>")
    assert re.findall(r'title="(\d)\.png"', choice) == ["4", "0"]
    assert re.findall(r'title="(\d)\.png"', duplicates) == ["4", "1", "2", "3"]
    assert "<b>1</b> · 5" in choice
    assert "near-duplicates of 1 of these" in choice
    assert "with labels already" in choice
    assert "unreadable" not in page
    assert "and 2 more" in duplicates
    assert "0.9123 or more" in duplicates
    assert "were wanted" not in page


def test_a_choice_that_came_out_smaller_says_so_and_without_duplicates_there_is_no_word_of_them() -> None:
    page = choice_page(replace(CHOICE, num_wanted=7, shown_duplicates=[[], []]), "to_label.csv")
    assert "7 were wanted: all others have labels, are near-duplicates or cannot be read." in page
    assert "Near-duplicates</h2>" not in page
