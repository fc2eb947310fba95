"""Features of many images at once against one image at a time."""

from collections.abc import Callable
from pathlib import Path

import torch

from sslight.data import build_source, decode
from sslight.evaluate.features.extract import EvalTransform, Extraction, extract_features
from sslight.views import center_view, normalize
from tests.evaluate.pooled import Pooled

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
TRANSFORM = EvalTransform(24, MEAN, STD)


def test_features_are_those_of_one_image_at_a_time_in_order(image_folder: Callable[..., Path]) -> None:
    source = build_source([str(image_folder("images", each=11))], labeled=False)
    backbone = Pooled().train()
    features, readable = extract_features(backbone, source, TRANSFORM, Extraction(batch_size=4))
    assert readable.all()
    assert backbone.training
    assert features.shape == (11, 12)
    for index in range(11):
        view = center_view(decode(source.read(index)), 24)
        alone = backbone(normalize(view[None, None], MEAN, STD))
        torch.testing.assert_close(features[index], alone[0])


def test_unreadable_images_are_marked_and_leave_the_others_in_place(image_folder: Callable[..., Path]) -> None:
    folder = image_folder("images", each=5)
    (folder / "001.jpg").write_bytes(b"no picture")
    source = build_source([str(folder)], labeled=False)
    features, readable = extract_features(Pooled(), source, TRANSFORM, Extraction(batch_size=2))
    assert readable.tolist() == [True, False, True, True, True]
    view = center_view(decode(source.read(3)), 24)
    torch.testing.assert_close(features[3], Pooled()(normalize(view[None, None], MEAN, STD))[0])
