"""What is exported: the network as a device computes it."""

from pathlib import Path

import pytest
import torch

from sslight.backbones import BackboneInfo
from sslight.export.network import prepare
from tests.export.exports import MEAN, STD, write_backbone


@pytest.mark.parametrize("name", ["mobileone_s0", "repghostnet_050"])
def test_branches_are_fused_for_a_device_and_the_network_stays_as_it_was(name: str, tmp_path: Path) -> None:
    backbone = write_backbone(tmp_path / "backbone.safetensors", name)
    info = BackboneInfo(name, 32, None, MEAN, STD)
    exportable = prepare(backbone, info, image_size=32, input="normalized", classifier=None)
    fused = exportable.fused()
    sizes = [sum(parameter.numel() for parameter in net.parameters()) for net in (exportable.network, fused)]
    assert sizes[1] < sizes[0]
    images = torch.randn(2, 3, 32, 32)
    expected = exportable.network(images)
    assert (fused(images) - expected).abs().max() < 1e-5 * expected.abs().max()
