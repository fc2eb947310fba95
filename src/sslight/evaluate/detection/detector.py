"""torchvision's Faster R-CNN and Mask R-CNN on a pre-trained backbone, in the published setting."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from torch.overrides import TorchFunctionMode
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from sslight.backbones import BackboneInfo
from sslight.config import DetectSettings
from sslight.evaluate.detection.pyramid import BackboneWithPyramid

_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_FEW_LEVELS = 4
_PAD_TO = 32


def build_detector(
    backbone: nn.Module, info: BackboneInfo, settings: DetectSettings, *, num_categories: int
) -> nn.Module:
    """A detector whose backbone is pre-trained (and used as it is) and whose other layers are new.

    In training mode it takes a list of images ``[3, h, w]`` of 0–1 and their targets, and gives its losses by
    name. In eval mode it takes images only, and gives for each ``boxes [N, 4]`` (left, top, right, bottom in
    px of the image given), ``labels [N]`` from 1, ``scores [N]`` and with masks ``masks [N, 1, 28, 28]``:
    probabilities within the box. ``num_categories`` is without the background.
    ValueError if the backbone does not give feature maps at the strides that are set.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        pyramid = BackboneWithPyramid(backbone, name=info.name, strides=settings.strides)
        levels = [str(level) for level in range(len(pyramid.strides))]
        few = len(levels) + 1 < _FEW_LEVELS
        arguments = {
            "num_classes": num_categories + 1,
            "rpn_anchor_generator": AnchorGenerator(*anchors(pyramid.strides)),
            "rpn_post_nms_top_n_train": 2000 if few else 1000,
            "rpn_post_nms_top_n_test": 1000,
            "box_batch_size_per_image": settings.proposals,
            "box_roi_pool": MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=0),
        }
        if settings.masks:
            pool = MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=0)
            detector: nn.Module = MaskRCNN(pyramid, mask_roi_pool=pool, **arguments)
        else:
            detector = FasterRCNN(pyramid, **arguments)
        _initialize(detector)
    mask_parts = ("roi_heads.mask_predictor",) if settings.masks else ()
    for part in ("backbone", "rpn.head", "roi_heads.box_predictor", *mask_parts):
        detector.get_submodule(part).register_forward_hook(_in_float32)
    detector.transform = _NormalizeAndPad(0, 0, list(info.mean), list(info.std), size_divisible=_PAD_TO)
    return detector


def _initialize(detector: nn.Module) -> None:
    """New layers start as in detectron2; torchvision's other ones do already."""
    deviations = {"box_predictor.cls_score": 0.01, "box_predictor.bbox_pred": 0.001, "mask_fcn_logits": 0.001}
    for name, module in detector.get_submodule("roi_heads").named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
            if (deviation := next((d for end, d in deviations.items() if name.endswith(end)), None)) is not None:
                nn.init.normal_(module.weight, std=deviation)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)


class L1BoxLoss(TorchFunctionMode):
    """Within, torchvision's detectors take plain L1 of boxes, as detectron2 does, in place of smooth L1."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}) | ({"beta": 0.0} if func is smooth_l1_loss else {}))


def _in_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    """The output of a module in float32, also under autocast.

    torchvision computes anchors and boxes in the type of feature maps and predictions: in bfloat16 a corner
    at 800 px would be off by up to 2.
    """
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return type(output)((name, _in_float32(module, inputs, value)) for name, value in output.items())
    return type(output)(_in_float32(module, inputs, value) for value in output)


def anchors(strides: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[float, ...], ...]]:
    """Side lengths in px and height-to-width ratios of the anchors on each level, the pooled one included.

    One side of 8 strides on each level; on pyramids of few levels three sides of 2, 4 and 8 strides.
    """
    levels = (*strides, 2 * strides[-1])
    factors = (2, 4, 8) if len(levels) < _FEW_LEVELS else (8,)
    sides = tuple(tuple(factor * stride for factor in factors) for stride in levels)
    return sides, (_ASPECT_RATIOS,) * len(levels)


class _NormalizeAndPad(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Images come resized by the loader, and what is found in them is mapped to the annotated image elsewhere."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        return result
