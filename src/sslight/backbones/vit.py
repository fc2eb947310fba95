"""Vision transformers that take views of several sizes and start as the original's do."""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def resize_position_embedding(
    embedding: Tensor, *, native_grid: tuple[int, int], grid: tuple[int, int], num_prefix_tokens: int
) -> Tensor:
    """The position embedding of a grid of patches, from the learnt one.

    Bicubic with the scale factor (n + 0.1) / native, n patches per side, which also sets the sampling
    positions (facebookresearch/dino, ``interpolate_pos_encoding``). That differs clearly from resizing
    to n × n and from timm's antialiased resizing, and published weights were trained with it.

    Args:
        embedding: ``[1, num_prefix_tokens + H·W, D]``, H × W the native grid.
        native_grid: Patches per side (rows, columns) of ``embedding``.
        grid: Patches per side wanted; the native grid gives ``embedding`` itself.
        num_prefix_tokens: Leading entries without a place in the image (class token), kept as they are.

    Returns:
        ``[1, num_prefix_tokens + h·w, D]``.
    """
    if grid == native_grid:
        return embedding
    prefix, patches = embedding[:, :num_prefix_tokens], embedding[:, num_prefix_tokens:]
    plane = patches.reshape(1, *native_grid, -1).permute(0, 3, 1, 2)
    factors = [(new + 0.1) / native for new, native in zip(grid, native_grid, strict=True)]
    plane = F.interpolate(plane, scale_factor=factors, mode="bicubic", align_corners=False)
    assert plane.shape[-2:] == grid
    return torch.cat([prefix, plane.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class MultiSizeVisionTransformer(VisionTransformer):  # type: ignore[misc]  # timm has no type information
    """A ViT of timm whose position embedding follows the size of the view as the original's does.

    timm's entry points fix the class they build, so :meth:`adopt` turns their result into this class;
    parameters, state-dict names, deep copies and pickles are those of an ordinary module.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        patches = x.flatten(1, 2)
        tokens = [t.expand(batch, -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        embedding = resize_position_embedding(
            self.pos_embed,
            native_grid=self.patch_embed.grid_size,
            grid=(height, width),
            num_prefix_tokens=0 if self.no_embed_class else self.num_prefix_tokens,
        )
        if self.no_embed_class:
            x = torch.cat([*tokens, patches + embedding], dim=1)
        else:
            x = torch.cat([*tokens, patches], dim=1) + embedding
        dropped: Tensor = self.pos_drop(x)
        return dropped

    @classmethod
    def adopt(cls, vit: VisionTransformer) -> None:
        """Turn a new plain timm ViT, built with ``dynamic_img_size=True``, into this class in place.

        Its class token starts with a deviation of 0.02 as in facebookresearch/dino, for timm's 1e-6; no new draw.
        """
        assert type(vit) is VisionTransformer
        assert vit.dynamic_img_size
        assert vit.pos_embed is not None
        vit.__class__ = cls
        if vit.cls_token is not None:
            with torch.no_grad():
                vit.cls_token.mul_(0.02 / 1e-6)
