import pytest
import torch
from torch import nn
from torchvision.models.detection.roi_heads import fastrcnn_loss

from sslight.backbones import BackboneInfo, build_backbone
from sslight.config import DetectSettings, build
from sslight.evaluate.detection.detector import L1BoxLoss, anchors, build_detector
from sslight.evaluate.detection.pyramid import BackboneWithPyramid, find_feature_maps
from sslight.evaluate.detection.schedule import detection_optimizer


def detector(name: str = "test_resnet", *, masks: bool = False, strides: list[int] | None = None) -> nn.Module:
    return built(build_backbone(name), name, masks=masks, strides=strides)


def built(backbone: nn.Module, name: str, **settings: object) -> nn.Module:
    info = BackboneInfo(name, 64, None, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return build_detector(backbone, info, build(DetectSettings, settings, model="timm:test_resnet"), num_categories=3)


def test_mobilenet_v2_gives_its_two_deepest_stages_the_last_with_1280_channels() -> None:
    pyramid = BackboneWithPyramid(build_backbone("mobilenet_v2"), name="mobilenet_v2").eval()
    assert pyramid.strides == (16, 32)
    maps = find_feature_maps(pyramid.backbone, "mobilenet_v2")
    assert (maps.channels[16], maps.channels[32]) == (96, 1280)
    with torch.no_grad():
        levels = pyramid(torch.zeros(1, 3, 96, 128))
    shapes = {name: tuple(level.shape) for name, level in levels.items()}
    assert shapes == {"0": (1, 256, 6, 8), "1": (1, 256, 3, 4), "pool": (1, 256, 2, 2)}
    assert all(parameter.requires_grad for parameter in pyramid.parameters())


def test_resnets_give_four_stages() -> None:
    pyramid = BackboneWithPyramid(build_backbone("resnet18"), name="resnet18").eval()
    assert pyramid.strides == (4, 8, 16, 32)
    with torch.no_grad():
        levels = pyramid(torch.zeros(1, 3, 64, 64))
    assert [level.shape[2] for level in levels.values()] == [16, 8, 4, 2, 1]


def test_anchors_are_as_published() -> None:
    assert anchors((4, 8, 16, 32))[0] == ((32,), (64,), (128,), (256,), (512,))
    assert anchors((16, 32))[0] == ((32, 64, 128), (64, 128, 256), (128, 256, 512))
    assert anchors((16, 32))[1] == ((0.5, 1.0, 2.0),) * 3


def test_the_last_map_is_what_the_pooling_of_the_backbone_gets() -> None:
    backbone = build_backbone("mobilenet_v2").eval()
    images = torch.rand(2, 3, 64, 64)
    final, _ = backbone.forward_intermediates(images)  # type: ignore[operator]
    torch.testing.assert_close(final.mean((2, 3)), backbone(images))


def test_parameters_behind_the_last_map_are_frozen() -> None:
    backbone = build_backbone("mobilenetv3_small_100")
    BackboneWithPyramid(backbone, name="mobilenetv3_small_100")
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv_head.weight", "conv_head.bias"}


def test_a_look_at_the_maps_changes_nothing() -> None:
    backbone = build_backbone("test_resnet")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    find_feature_maps(backbone, "test_resnet")
    assert backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["vit_tiny", "mixer_s32_224"])
def test_backbones_without_a_pyramid_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"the backbone {name}.* choose another"):
        BackboneWithPyramid(build_backbone(name), name=name)


def test_strides_that_the_backbone_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strides=\[32, 64\] does not fit .* have the strides 2, 4, 8, 16, 32"):
        BackboneWithPyramid(build_backbone("resnet18"), name="resnet18", strides=[32, 64])


@pytest.mark.parametrize("masks", [False, True])
def test_losses_reach_every_trained_parameter_also_with_an_image_of_nothing(masks: bool) -> None:
    model = detector(masks=masks).train()
    images = [torch.rand(3, 40, 64), torch.rand(3, 64, 48)]
    targets = [
        {
            "boxes": torch.tensor([[4.0, 5.0, 30.0, 35.0]]),
            "labels": torch.tensor([2]),
            "masks": torch.ones(1, 40, 64, dtype=torch.uint8),
        },
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, 64, 48, dtype=torch.uint8),
        },
    ]
    losses = model(images, targets)
    names = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert losses.keys() == (names | {"loss_mask"} if masks else names)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


def test_new_layers_start_as_detectron2s() -> None:
    state = detector(masks=True).get_submodule("roi_heads").state_dict()
    deviations = {"box_predictor.cls_score": 0.01, "box_predictor.bbox_pred": 0.001}
    deviations |= {"mask_predictor.mask_fcn_logits": 0.001, "box_head.fc7": (1 / 1024) ** 0.5}
    for name, deviation in deviations.items():
        assert float(state[f"{name}.weight"].std()) == pytest.approx(deviation, rel=0.1), name
    biases = [value for name, value in state.items() if name.endswith("bias")]
    assert len(biases) == 10
    assert not any(bias.any() for bias in biases)


def test_boxes_are_trained_by_plain_l1() -> None:
    predicted, wanted = torch.tensor([[0.05, 0.3, -2.0, 0.0]]), torch.zeros(1, 4)
    logits, labels, few = torch.zeros(1, 2), [torch.tensor([1])], torch.cat([torch.zeros(1, 4), predicted], 1)
    with L1BoxLoss():
        _, loss = fastrcnn_loss(logits, few, labels, [wanted])
    assert float(loss) == pytest.approx(2.35)
    _, smooth = fastrcnn_loss(logits, few, labels, [wanted])
    assert float(smooth) < 2.3  # and afterwards torchvision is as it was


def untrained_on_few_proposals() -> nn.Module:
    """A detector without the large maps, whose convolutions take a minute in half precision on a CPU."""
    model = detector(masks=True, strides=[16, 32]).eval()
    model.rpn._post_nms_top_n["testing"] = 10  # type: ignore[index, operator, union-attr]
    model.roi_heads.detections_per_img = 5  # type: ignore[union-attr]
    model.roi_heads.score_thresh = 0.0  # type: ignore[union-attr]
    return model


def test_predictions_are_in_px_of_the_image_given() -> None:
    model = untrained_on_few_proposals()
    with torch.no_grad():
        (output,) = model([torch.rand(3, 40, 64)])
    assert len(output["boxes"]) > 0
    assert output["boxes"][:, [0, 2]].max() <= 64
    assert output["boxes"][:, [1, 3]].max() <= 40
    assert output["labels"].min() >= 1
    assert output["masks"].shape[1:] == (1, 28, 28)


def test_boxes_stay_precise_in_half_precision() -> None:
    model = untrained_on_few_proposals()
    wide = torch.rand(3, 40, 400)
    proposals: dict[str, torch.Tensor] = {}
    for name, enabled in (("full", False), ("half", True)):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            (output,) = model([wide])
            images, _ = model.transform([wide], None)  # type: ignore[operator]
            levels = list(model.backbone(images.tensors).values())  # type: ignore[operator]
        assert {output[key].dtype for key in ("boxes", "scores", "masks")} == {torch.float32}
        proposals[name] = model.rpn.anchor_generator(images, levels)[0]  # type: ignore[operator, union-attr]
    assert torch.equal(proposals["full"], proposals["half"])


def test_the_seed_decides_the_new_layers_and_leaves_the_stream_alone() -> None:
    state = torch.get_rng_state()
    backbones = [build_backbone("test_resnet") for _ in range(2)]
    torch.set_rng_state(state)
    models = [built(backbone, "test_resnet", seed=4) for backbone in backbones]
    assert torch.equal(torch.get_rng_state(), state)
    a, b = (model.roi_heads.box_predictor.state_dict() for model in models)  # type: ignore[union-attr]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_norm_layers_do_not_decay_and_biases_do() -> None:
    model = detector()
    optimizer = detection_optimizer(model, 1e-4)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(parameter.requires_grad for parameter in model.parameters())
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            expected = 0.0 if isinstance(module, nn.BatchNorm2d) else 1e-4
            assert decay[id(parameter)] == expected, (name, key)
