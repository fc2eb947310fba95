"""What the page shows of a classifier's mistakes: few classes in numbers, many as a heat map, labels one by one."""

from typing import Any

import numpy as np
import pytest

from sslight.report.page import together
from sslight.report.run.mistakes import mistakes_parts
from tests.report.test_page import HOSTILE, Balance


def content(size: int, *, matrix: bool = True, **changes: Any) -> dict[str, Any]:
    """Of ten images of each class one is taken for the next class."""
    names = [f"class {at}" for at in range(size)]
    counted = 9 * np.eye(size, dtype=int) + np.roll(np.eye(size, dtype=int), 1, axis=1)
    one = {"name": "a/1.png", "class": "class 0", "probability": 0.02, "taken_for": "class 1", "its_probability": 0.97}
    return {
        "protocol": "finetune",
        "accuracy": {"top1": 90.0},
        "checkpoint": {"path": "runs/first"},
        "details": {"train_images": dict.fromkeys(names, 5)},
        "per_class": {name: {"accuracy": 90.0, "images": 10} for name in names},
        "confusions": [{"class": "class 0", "taken_for": "class 1", "images": 1}],
        "confusion_matrix": counted.tolist() if matrix else None,
        "worst_images": [one],
        **changes,
    }


def shown(result: dict[str, Any], **thumbnails: Any) -> tuple[str, Balance]:
    text = together(mistakes_parts(result, thumbnails, name="first"))
    return text, Balance(text)


@pytest.mark.parametrize(("size", "numbers"), [(3, 6), (12, 24), (13, 0), (50, 0)])
def test_a_matrix_has_numbers_where_they_have_room_and_is_a_heat_map_elsewhere(size: int, numbers: int) -> None:
    text, page = shown(content(size))
    assert page.open == []
    assert text.count('class="right" fill-opacity="0.73"') == size  # 0.12 + 0.68 * 0.9
    assert text.count('class="wrong" fill-opacity="0.19"') == size
    assert text.count('class="number"') == numbers
    assert text.count("<title>class 0 taken for class 1: 1 of 10</title>") == 1
    assert text.count(">class 2<title>class 2</title>") == 2  # beside its row and above its column


def test_of_too_many_classes_for_a_matrix_the_pairs_and_the_worst_images_are_shown() -> None:
    text, page = shown(content(101, matrix=False), **{"a/1.png": np.zeros((64, 64, 3), np.uint8)})
    assert "<svg" not in text
    assert '<th scope="row">class 0</th><td>class 1</td><td>1</td><td>10 %</td>' in text
    assert text.count("<img") == 1
    assert "class 1 97 % right: class 0 2 % a/1.png" in " ".join(page.text.replace("%", "% ").split())


def test_a_classifier_without_mistakes_says_so() -> None:
    text, _ = shown(content(3, worst_images=[], confusions=[]))
    assert "No image was classified wrongly." in text
    assert "Most confused classes" not in text


def test_results_that_name_no_images_have_their_classes_folded_away() -> None:
    result = content(3, matrix=False, worst_images=[])
    text, page = shown(result)
    assert text.startswith("<details><summary>By class (finetune, runs/first); the worst: class 0 90 %")
    assert "taken for" in page.text


def test_overlapping_labels_have_their_worst_images_by_label_and_the_others_are_counted() -> None:
    each = [
        {"name": f"{at}{has}.png", "class": f"class {at}", "labeled": has, "probability": 0.25}
        for at in range(14)
        for has in (False, True)
    ]
    text, page = shown(content(14, matrix=False, worst_images=each, confusions=[], accuracy={"map": 50.0}))
    assert page.open == []
    assert text.count("<figure") == 2 * 12
    assert "and 2 more labels in results.json." in page.text
    assert "class 0 average precision 90.0 %" in page.text
    assert (page.text.count(", has it not"), page.text.count(", has it")) == (12, 24)
    assert "average precision [%]" in page.text


def test_names_stay_text() -> None:
    names = [HOSTILE, "b", "c"]
    result = content(3)
    result["details"] = {"train_images": dict.fromkeys(names, 1)}
    result["per_class"] = {name: {"accuracy": 90.0, "images": 10} for name in names}
    result["confusions"] = [{"class": HOSTILE, "taken_for": HOSTILE, "images": 1}]
    worst = {"name": HOSTILE, "class": HOSTILE, "taken_for": HOSTILE, "probability": 0.1, "its_probability": 0.9}
    _, page = shown(result | {"worst_images": [worst]}, **{HOSTILE: np.zeros((8, 8, 3), np.uint8)})
    assert page.open == []
    assert "script" not in page.names
    assert page.text.count("<script>") > 6
