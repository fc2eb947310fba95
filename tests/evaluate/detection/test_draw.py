from pathlib import Path

import numpy as np
from PIL import Image

from sslight.data import encode_mask, open_detection_sets
from sslight.evaluate.detection.average_precision import Prediction
from sslight.evaluate.detection.draw import draw_sample
from tests.data.detection_files import coco_folder


def test_boxes_and_masks_are_drawn_where_they_were_predicted(tmp_path: Path) -> None:
    images = open_detection_sets(str(coco_folder(tmp_path)), train_split=[], val_split=[], masks=False)[1]
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[24:44, 32:60] = 1
    predictions = [Prediction(0, 1, (32.0, 24.0, 28.0, 20.0), 0.9, encode_mask(mask))]
    plain, drawn = (tmp_path / name for name in ("plain.png", "drawn.png"))
    draw_sample(plain, images, [], [0])
    draw_sample(drawn, images, predictions, [0])
    with Image.open(plain) as before, Image.open(drawn) as after:
        assert before.size == after.size == (480, 400)
        changed = np.abs(np.asarray(before, dtype=int) - np.asarray(after, dtype=int)).max(2) > 30
    rows, columns = np.nonzero(changed)
    scale = 476 / 64
    top = (400 - 48 * scale) / 2
    assert abs(columns.min() - (2 + 32 * scale)) <= 4
    assert rows.max() <= top + 44 * scale + 4
    inside = changed[round(top + 30 * scale) : round(top + 40 * scale), round(2 + 36 * scale) : round(2 + 56 * scale)]
    assert inside.mean() > 0.95


def test_unsure_predictions_are_drawn_only_if_there_are_no_three_better_ones(tmp_path: Path) -> None:
    images = open_detection_sets(str(coco_folder(tmp_path)), train_split=[], val_split=[], masks=False)[1]
    sure = [Prediction(0, 0, (5.0 + 18 * i, 20.0, 8.0, 8.0), 0.9) for i in range(3)]
    unsure = Prediction(0, 0, (2.0, 2.0, 60.0, 44.0), 0.3)
    files = {name: tmp_path / f"{name}.png" for name in ("three", "four", "one", "two")}
    draw_sample(files["three"], images, sure, [0])
    draw_sample(files["four"], images, [unsure, *sure], [0])
    draw_sample(files["one"], images, sure[:1], [0])
    draw_sample(files["two"], images, [unsure, sure[0]], [0])
    assert files["three"].read_bytes() == files["four"].read_bytes()
    assert files["one"].read_bytes() != files["two"].read_bytes()


def test_unreadable_images_are_left_out_of_the_sample(tmp_path: Path) -> None:
    images = open_detection_sets(str(coco_folder(tmp_path)), train_split=[], val_split=[], masks=False)[1]
    images.images[0].file.write_bytes(b"nothing")
    draw_sample(tmp_path / "a.png", images, [], [0, 2])
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (480, 400)
