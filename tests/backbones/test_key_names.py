"""torchvision's names."""

import pytest
import torchvision

from sslight.backbones import build_backbone
from sslight.backbones.key_names import to_torchvision_keys


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet34", "resnet50"])
def test_names_are_those_of_torchvision(name: str) -> None:
    ours = build_backbone(name).state_dict()
    theirs = getattr(torchvision.models, name)().state_dict()
    found = to_torchvision_keys(name, ours)
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in theirs.items() if not key.startswith(("fc.", "classifier."))
    }
    assert all(a is b for a, b in zip(found.values(), ours.values(), strict=True))


def test_a_network_that_torchvision_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="backbone=vit_tiny has no twin in torchvision"):
        to_torchvision_keys("vit_tiny", {})
