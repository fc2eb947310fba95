"""What is exported: a backbone for one image size, with its preprocessing and perhaps a classifier."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.backbones import BackboneInfo, LastBlocks, build_backbone, check_image_size, load_strictly
from sslight.backbones.vit import MultiSizeVisionTransformer, resize_position_embedding
from sslight.export.classifier import Classifier
from sslight.views import normalize

InputKind = Literal["nhwc", "nchw", "normalized"]


class ExportNetwork(nn.Module):
    """Images to features, or to (features, logits) with a classifier.

    Args:
        represented: Normalised images ``[B, 3, S, S]`` → features ``[B, D]``.
        mean, std: Of the channels, of 0–1.
        input: ``nhwc``: bytes ``[B, S, S, 3]``; ``nchw``: bytes ``[B, 3, S, S]``; ``normalized``: float32
            ``[B, 3, S, S]`` as it is.
        classifier: ``[B, D]`` → logits ``[B, C]``.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        represented: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        input: InputKind,
        classifier: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.represented, self.classifier, self._input = represented, classifier, input
        channels = torch.tensor([mean, std]).view(2, 1, 3, 1, 1)
        self.register_buffer("factor", 1 / (255 * channels[1]))
        self.register_buffer("offset", -channels[0] / channels[1])

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``images`` as ``input`` says → features ``[B, D]``, and logits ``[B, C]`` with a classifier."""
        if self._input == "nhwc":
            images = images.permute(0, 3, 1, 2)
        if self._input != "normalized":
            images = images.float() * self.factor + self.offset
        features: Tensor = self.represented(images)
        return features if self.classifier is None else (features, self.classifier(features))


@dataclass(frozen=True)
class Exportable:
    """A network that is ready to be written.

    Attributes:
        info: Name, sizes and normalisation; ``image_size`` is that of the export.
        backbone: Without preprocessing and classifier; native at ``info.image_size``.
        network: With both.
        input: What ``network`` takes.
        classifier: What the classifier is, None without one.
    """

    info: BackboneInfo
    backbone: nn.Module
    network: ExportNetwork
    input: InputKind
    classifier: Classifier | None

    @property
    def output_names(self) -> list[str]:
        """``features``, and ``logits`` with a classifier."""
        return ["features"] if self.classifier is None else ["features", "logits"]

    def as_input(self, images: Tensor) -> npt.NDArray[Any]:
        """Bytes ``[B, 3, S, S]`` as the array that the network takes."""
        match self.input:
            case "nhwc":
                array = images.permute(0, 2, 3, 1).numpy()
            case "nchw":
                array = images.numpy()
            case "normalized":
                array = normalize(images[None], self.info.mean, self.info.std).numpy()
        return np.ascontiguousarray(array)

    def around(self, backbone: nn.Module) -> ExportNetwork:
        """Another backbone of this kind with the same preprocessing and classifier, in eval mode."""
        represented, layer = backbone, None
        if self.classifier is not None:
            layer = self.classifier.layer()
            if self.classifier.last_blocks is not None:
                represented = LastBlocks(backbone, self.classifier.last_blocks)
        network = ExportNetwork(represented, mean=self.info.mean, std=self.info.std, input=self.input, classifier=layer)
        return network.eval().requires_grad_(False)


def prepare(
    backbone: nn.Module, info: BackboneInfo, *, image_size: int, input: InputKind, classifier: Classifier | None
) -> Exportable:
    """Make a backbone ready to be exported at one image size.

    Raises:
        ValueError: it cannot take that size.
    """
    check_image_size(backbone, image_size, "image_size")
    backbone = _native_at(backbone, info, image_size).eval().requires_grad_(False)
    exportable = Exportable(replace(info, image_size=image_size), backbone, nn.Module(), input, classifier)  # type: ignore[arg-type]
    return replace(exportable, network=exportable.around(backbone))


def _native_at(backbone: nn.Module, info: BackboneInfo, image_size: int) -> nn.Module:
    """A ViT whose position embedding is that of the size; other programs would resize it otherwise."""
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
