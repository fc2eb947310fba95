"""Gradient checkpointing changes memory, and nothing else."""

import copy

import pytest
import torch

from sslight.backbones import build_backbone, checkpoint_gradients, count_statistics_once


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v2", 32), ("resnet18", 32), ("vit_tiny", 32)])
def test_loss_gradients_and_statistics_are_the_same_to_the_bit(name: str, size: int) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name, image_size=size)
    checkpointed = copy.deepcopy(plain)
    checkpoint_gradients(checkpointed, name)
    count_statistics_once(checkpointed)
    images = torch.randn(4, 3, size, size)
    for _ in range(2):
        for network in (plain, checkpointed):
            network(images).square().mean().backward()
    for (key, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert a.grad is not None, key
        assert b.grad is not None, key
        assert torch.equal(a.grad, b.grad), key
    for (key, x), y in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(x, y), key


def test_fewer_activations_are_kept() -> None:
    def kept(checkpoint: bool) -> int:
        network = build_backbone("resnet18")
        if checkpoint:
            checkpoint_gradients(network, "resnet18")
        sizes: list[int] = []

        def pack(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            network(torch.randn(2, 3, 64, 64))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_a_network_without_the_mode_is_refused() -> None:
    network = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^grad_checkpointing=true, but backbone=odd has no such mode in timm: "):
        checkpoint_gradients(network, "odd")
