"""What is exported: a backbone for one image size, with its preprocessing and possibly a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from sslight.backbones import BackboneInfo, LastBlocks, build_backbone, check_image_size, load_strictly
from sslight.backbones.vit import MultiSizeVisionTransformer, resize_position_embedding
from sslight.export.classifier import Classifier
from sslight.views import normalize

InputKind = Literal["nhwc", "nchw", "normalized"]


class ExportNetwork(nn.Module):
    """Images to features ``[B, D]``, or to (features, logits ``[B, C]``) with a classifier, and probabilities if asked.

    ``input`` says what images are: ``nhwc`` bytes ``[B, S, S, 3]``, ``nchw`` bytes ``[B, 3, S, S]``, or
    ``normalized`` float32 ``[B, 3, S, S]``.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        represented: nn.Module,
        classifier: nn.Module | None,
        info: BackboneInfo,
        input: InputKind,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.represented, self.classifier, self._input = represented, classifier, input
        channels = torch.tensor([info.mean, info.std]).view(2, 1, 3, 1, 1)
        self.register_buffer("factor", 1 / (255 * channels[1]))
        self.register_buffer("offset", -channels[0] / channels[1])

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self._input == "nhwc":
            # Without contiguous(), pooling is traced as as_strided, and the file computes shapes as it runs.
            images = images.permute(0, 3, 1, 2).contiguous()
        if self._input != "normalized":
            images = images.float() * self.factor + self.offset
        features: Tensor = self.represented(images)
        if self.classifier is None:
            return features
        logits = self.classifier(features)
        return (features, logits) if self.activation is None else (features, logits, self.activation(logits))


@dataclass(frozen=True)
class Exportable:
    """A network that is ready to be written."""

    info: BackboneInfo  # its image_size is that of the export
    backbone: nn.Module  # native at that size
    input: InputKind
    classifier: Classifier | None
    probabilities: bool = False  # an output of their own

    @cached_property
    def network(self) -> ExportNetwork:
        """The backbone with preprocessing and classifier."""
        return self.around(self.backbone)

    def fused(self) -> ExportNetwork:
        """The same with each group of re-parameterized branches (MobileOne, RepViT) as one convolution, for devices."""
        return self.around(reparameterize_model(self.backbone))

    @property
    def output_names(self) -> list[str]:
        """``features``, with a classifier ``logits``, and ``probabilities`` if they are asked for."""
        names = ["features"] if self.classifier is None else ["features", "logits"]
        return names + ["probabilities"] * self.probabilities

    def as_input(self, images: Tensor) -> npt.NDArray[Any]:
        """Bytes ``[B, 3, S, S]`` as the array that the network takes."""
        return as_input(images, self.input, mean=self.info.mean, std=self.info.std)

    def example(self, batch: int = 1) -> Tensor:
        """Blank images as the network takes them, to trace it with."""
        size = self.info.image_size
        return torch.from_numpy(self.as_input(torch.zeros(batch, 3, size, size, dtype=torch.uint8)))

    def around(self, backbone: nn.Module) -> ExportNetwork:
        """Another backbone of this kind with the same preprocessing and classifier, in eval mode."""
        represented = backbone
        layer: nn.Module | None = None
        if self.classifier is not None:
            last = nn.Linear(self.classifier.weight.shape[1], len(self.classifier.bias))
            last.load_state_dict({"weight": self.classifier.weight, "bias": self.classifier.bias})
            layer = last if self.classifier.hidden is None else nn.Sequential(*self.classifier.hidden, last)
            if self.classifier.last_blocks is not None:
                represented = LastBlocks(backbone, self.classifier.last_blocks)
        activation: nn.Module | None = None
        if self.classifier is not None and self.probabilities:
            activation = nn.Sigmoid() if self.classifier.multi_label else nn.Softmax(1)
        network = ExportNetwork(represented, layer, self.info, self.input, activation)
        return network.eval().requires_grad_(False)


def as_input(images: Tensor, kind: InputKind, *, mean: Sequence[float], std: Sequence[float]) -> npt.NDArray[Any]:
    """Bytes ``[B, 3, S, S]`` as the array that a file with this kind of input takes."""
    match kind:
        case "nhwc":
            array = images.permute(0, 2, 3, 1).numpy()
        case "nchw":
            array = images.numpy()
        case "normalized":
            array = normalize(images[None], mean, std).numpy()
    return np.ascontiguousarray(array)


def prepare(
    backbone: nn.Module,
    info: BackboneInfo,
    *,
    image_size: int,
    input: InputKind,
    classifier: Classifier | None,
    probabilities: bool = False,
) -> Exportable:
    """Prepare a backbone for one image size. Raises ValueError if it cannot take that size."""
    check_image_size(backbone, image_size, "image_size")
    backbone = native_at(backbone, info, image_size).eval().requires_grad_(False)
    return Exportable(replace(info, image_size=image_size), backbone, input, classifier, probabilities)


def native_at(backbone: nn.Module, info: BackboneInfo, image_size: int) -> nn.Module:
    """The backbone; for a ViT, with a position embedding of this size, which other programs would resize."""
    if not isinstance(backbone, MultiSizeVisionTransformer):
        return backbone
    native = backbone.patch_embed.grid_size
    rows, columns = backbone.patch_embed.feat_ratio(as_scalar=False)
    grid = (image_size // rows, image_size // columns)
    if grid == native:
        return backbone
    other = build_backbone(info.name, image_size=image_size, patch_size=info.patch_size)
    state = backbone.state_dict()
    state["pos_embed"] = resize_position_embedding(
        state["pos_embed"],
        native_grid=native,
        grid=grid,
        num_prefix_tokens=0 if backbone.no_embed_class else backbone.num_prefix_tokens,
    )
    load_strictly(other, state, "the checkpoint")
    return other
