"""The class tokens of a ViT's last blocks, on which DINO evaluates ViTs (Caron et al., ICCV 2021, appendix F)."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

PUBLISHED_BLOCKS = 4


def has_class_token(backbone: nn.Module) -> bool:
    """Whether the backbone is a ViT with a class token and a norm after its last block."""
    return isinstance(backbone, VisionTransformer) and backbone.cls_token is not None


class LastBlocks(nn.Module):
    """``x [B, 3, H, W]`` → the class tokens of the last ``num_blocks`` blocks, ``[B, num_blocks · D]``.

    Each passes through the final norm; the earliest block comes first. Raises ValueError if the backbone has no class
    token, or fewer blocks.
    """

    def __init__(self, backbone: nn.Module, num_blocks: int) -> None:
        super().__init__()
        if not has_class_token(backbone):
            raise ValueError(
                f"linear.last_blocks={num_blocks} needs a ViT with a class token, which {type(backbone).__name__} "
                f"is not: leave it out."
            )
        assert isinstance(backbone, VisionTransformer)
        if num_blocks > len(backbone.blocks):
            raise ValueError(
                f"linear.last_blocks={num_blocks} is more than the {len(backbone.blocks)} blocks of the backbone: "
                f"choose 1 to {len(backbone.blocks)}."
            )
        self.backbone = backbone
        self._num_blocks = num_blocks
        self.head_hidden_size = num_blocks * int(backbone.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` → ``[B, num_blocks · D]``."""
        assert isinstance(self.backbone, VisionTransformer)
        blocks = self.backbone.forward_intermediates(
            x, indices=self._num_blocks, norm=True, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        return torch.cat([prefix[:, 0] for _, prefix in blocks], dim=1)
