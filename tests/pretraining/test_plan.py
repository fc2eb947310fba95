"""The rules behind ``auto``, on sets and machines described by hand."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sslight.backbones import BackboneInfo, build_backbone
from sslight.config import load_recipe
from sslight.data import Glance
from sslight.pretraining import memory as rooms
from sslight.pretraining.memory import (
    Memory,
    check_memory,
    fit,
    flops_per_image,
    largest_batch,
    lightest_that_fits,
    predict_memory,
)
from sslight.pretraining.plan import choose
from sslight.pretraining.sizes import Budget, Machine, Start, wanted_images
from tests.conftest import TINY

GB = 1 << 30
LAPTOP = Machine("cpu", "CPU", processes=1, cores=2, memory=10 * GB, precision="bf16")
EIGHT_GPUS = Machine("cuda", "GPU", processes=8, cores=64, memory=80 * GB, precision="bf16")
ICONS = Glance(2_000, short_side=32, megapixels=0.001)
TINY_IMAGENET = Glance(25_000, short_side=64, megapixels=0.004)
PHOTOS = Glance(3_000, short_side=3_000, megapixels=12.0)
IMAGENET = Glance(1_281_167, short_side=375, megapixels=0.19)
XRAYS = Glance(8_000, short_side=512, megapixels=0.3, is_gray=True)


def hours(number: float, *, images_per_second: float, pixels: int) -> Budget:
    return Budget(number, 3600 * number, 1 / images_per_second / pixels)


@pytest.mark.parametrize(
    ("images", "machine", "expected"),
    [
        (
            ICONS,
            LAPTOP,
            {"views.global_size": 64, "batch_size": 64, "epochs": 258, "views.num_local": 2, "dino.teacher_temp": 0.04},
        ),
        (
            TINY_IMAGENET,
            LAPTOP,
            {"views.local_size": 36, "batch_size": 64, "epochs": 20, "lr": 4.0, "dino.teacher_momentum": 0.99},
        ),
        (
            PHOTOS,
            LAPTOP,
            {
                "recipe": "dino_cnn_sslight_64",
                "views.global_size": 128,
                "views.local_size": 72,
                "views.blur_sigma": [0.1, 1.1],
                "data.scaled_decoding": True,
            },
        ),
        (
            IMAGENET,
            EIGHT_GPUS,
            {
                "recipe": "dino_cnn_sslight",
                "views.global_size": 224,
                "views.num_local": 6,
                "batch_size": 1024,
                "lr": 0.48,
                "optim.min_lr": 0.0048,
                "optim.warmup_epochs": 10.0,
                "dino.teacher_temp": 0.07,
                "dino.warmup_teacher_temp_epochs": 50,
                "dino.head_output_dim": 4096,
                "views.jitter_prob": 0.8,
                "epochs": 200,
                "workers": 7,
            },
        ),
        (XRAYS, LAPTOP, {"views.jitter": [0.4, 0.4, 0.0, 0.0], "views.grayscale_prob": 0.0}),
        (Glance(300, 64, 0.004), LAPTOP, {"batch_size": 32, "dino.teacher_temp": 0.02, "lr": 8.0}),
        (Glance(40_000, 100, 0.01), EIGHT_GPUS, {"views.global_size": 96, "views.local_size": 56, "batch_size": 128}),
    ],
)
def test_settings_follow_from_images_and_machine(images: Glance, machine: Machine, expected: dict[str, Any]) -> None:
    settings, choices = choose(images, machine, {"backbone": "mobilenetv3_small_050"})
    found = {choice.setting: choice.value for choice in choices}
    assert found | expected == found
    assert all(choice.because for choice in choices)
    assert settings.epochs == found["epochs"]


def test_mobilenet_v2s_take_moco_in_short_runs_and_what_is_given_decides() -> None:
    given: dict[str, Any]
    start: Start | None
    for given in (
        {},
        {"method": "moco"},
        {"moco.temperature": 0.1},
        {"backbone": "mobilenet_v2"},
        {"backbone": "mobilenetv2_035", "lr": 2.0},
    ):
        settings, choices = choose(TINY_IMAGENET, LAPTOP, given)
        found = {choice.setting: choice.value for choice in choices}
        assert (settings.method, found["recipe"], settings.moco.queue_size) == ("moco", "moco_cnn_next_64", 4096)
        assert (settings.optim.name, settings.moco.koleo_weight) == ("muon", 0.03)
        assert (found["optim.name"], found["moco.koleo_weight"]) == ("muon", 0.03)
        assert settings.lr == given.get("lr", 4.0)
        assert (settings.optim.min_lr, settings.optim.warmup_epochs) == pytest.approx((settings.lr / 400, 0.103))
        assert choices[0].because.startswith("MoCo with KoLeo and Muon: better than DINO in short runs of MobileNetV2s")
    for given, recipe in (
        ({"optim.name": "adamw"}, "moco_cnn_sslight_64"),
        ({"views.global_size": 224}, "moco_cnn_sslight"),
        ({"moco.koleo_weight": 0}, "moco_cnn_sslight_64"),
    ):
        settings, choices = choose(TINY_IMAGENET, LAPTOP, given)
        assert (choices[0].value, settings.moco.koleo_weight) == (recipe, 0)
        assert choices[0].because.startswith("MoCo: better than DINO in short runs of MobileNetV2s at 64 px;")
    info = BackboneInfo("mobilenet_v2", 224, None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    for given, start in (
        ({"method": "dino"}, None),
        ({"dino.teacher_temp": 0.05}, None),
        ({"backbone": "resnet18"}, None),
        ({"epochs": 400}, None),  # a long run
        ({"init_from": "weights.pth"}, Start(info, has_batch_norms=True)),
    ):
        settings, choices = choose(TINY_IMAGENET, LAPTOP, given, start=start)
        assert settings.method == "dino"
        assert choices[0].because == "the closest one; the settings below differ from it"
    assert choose(ICONS, LAPTOP, {})[0].method == "dino"  # few images
    for setting in ("swav.epsilon", "moco.temperature"):  # of a method: it asks for it
        for images, backbone in ((ICONS, "mobilenet_v2"), (TINY_IMAGENET, "resnet18")):
            settings, choices = choose(images, LAPTOP, {setting: 0.1, "backbone": backbone})
            method = setting.partition(".")[0]
            assert (settings.method, choices[0].value) == (method, f"{method}_cnn_sslight_64")
    with pytest.raises(ValueError, match=r"^swav\.epsilon and moco\.temperature are settings of different methods"):
        choose(TINY_IMAGENET, LAPTOP, {"swav.epsilon": 0.1, "moco.temperature": 0.1})
    given = {"views.num_global": 3}  # which MoCo does not take
    assert choose(TINY_IMAGENET, LAPTOP, given)[0].method == "dino"
    with pytest.raises(ValueError, match=r"views\.num_global=3, but MoCo takes one"):
        choose(TINY_IMAGENET, LAPTOP, given | {"method": "moco"})
    assert choose(TINY_IMAGENET, LAPTOP, {}, method="dino")[0].method == "dino"
    settings, choices = choose(TINY_IMAGENET, LAPTOP, {"epochs": 400}, method="moco")
    assert (settings.method, choices[0].value) == ("moco", "moco_cnn_sslight_64")  # KoLeo and Muon are for short runs
    settings, choices = choose(TINY_IMAGENET, LAPTOP, {"backbone": "resnet18", "method": "moco"})
    assert (settings.method, settings.optim.name, settings.moco.koleo_weight) == ("moco", "lars", 0)
    assert choices[0].because == "the closest one; the settings below differ from it"


def test_the_plan_for_imagenet_is_the_published_recipe() -> None:
    settings, _ = choose(IMAGENET, EIGHT_GPUS, {})
    published = load_recipe("dino_cnn_sslight")
    different = {"precision", "workers"}
    assert settings.model_dump(exclude=different) == published.model_dump(exclude=different)


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
@pytest.mark.parametrize("images", [ICONS, TINY_IMAGENET, PHOTOS, IMAGENET, XRAYS, Glance(5, 20, 0.1)])
@pytest.mark.parametrize("machine", [LAPTOP, EIGHT_GPUS])
def test_every_set_gets_settings_that_hold(method: str, images: Glance, machine: Machine) -> None:
    settings, _ = choose(images, machine, {"method": method})
    assert settings.batch_size % machine.processes == 0
    assert settings.batch_size // machine.processes >= 2


def test_a_vit_gets_views_of_whole_patches() -> None:
    settings, choices = choose(PHOTOS, LAPTOP, {"backbone": "vit_tiny", "patch_size": 8}, patch=8)
    assert choices[0].value == "dino_vit_sslight_64"
    assert (settings.views.global_size, settings.views.local_size) == (128, 72)
    assert settings.optim.name == "adamw"


def test_a_vit_cuts_its_views_into_as_many_patches_as_published() -> None:
    small = Glance(25_000, short_side=199, megapixels=0.04)
    info = BackboneInfo("vit_tiny", 224, 16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    weights = Start(info, has_batch_norms=False)
    for images, start, patch, side in (
        (TINY_IMAGENET, None, 4, 64),
        (PHOTOS, None, 8, 128),
        (small, None, 8, 128),
        (PHOTOS, weights, 16, 128),
        (TINY_IMAGENET, weights, 16, 96),
    ):
        given = {"backbone": "vit_tiny"} | ({"init_from": "weights.pth"} if start else {})
        settings, _ = choose(images, LAPTOP, given, patch=16, start=start)
        assert (settings.patch_size, settings.views.global_size) == (patch, side)
        assert not settings.freeze_norms  # which it has none of
    settings, _ = choose(PHOTOS, LAPTOP, {"backbone": "vit_small_patch14_dinov2", "method": "moco"}, patch=14)
    assert (settings.views.global_size, settings.views.local_size) == (126, 70)


def test_weights_made_for_small_images_keep_views_of_their_size() -> None:
    own = BackboneInfo("resnet18", 64, None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    settings, _ = choose(TINY_IMAGENET, LAPTOP, {"init_from": "run"}, start=Start(own, has_batch_norms=True))
    assert settings.views.global_size == 64


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
def test_loaded_weights_are_kept_from_being_lost(method: str) -> None:
    half = (0.5, 0.5, 0.5)
    info = BackboneInfo("tf_efficientnet_lite0", 224, None, mean=half, std=half)
    start = Start(info, has_batch_norms=True)
    given = {"method": method, "init_from": "weights.safetensors"}
    settings, choices = choose(TINY_IMAGENET, LAPTOP, given, start=start)
    assert (settings.backbone, settings.views.mean, settings.views.std) == (info.name, half, half)
    assert settings.freeze_norms
    assert (settings.views.global_size, settings.views.local_size) == (96, 56)  # as measured, and not 64
    new, _ = choose(TINY_IMAGENET, LAPTOP, {"method": method})
    assert [settings.lr, settings.optim.min_lr] == pytest.approx([0.1 * new.lr, 0.1 * new.optim.min_lr])
    assert settings.freeze_backbone_epochs == (0.0 if method == "dino" else 0.3)
    assert "init" not in {choice.setting for choice in choices}


def test_what_timm_says_of_a_network_is_not_taken_for_what_a_file_says() -> None:
    start = BackboneInfo("vit_tiny", 224, 16, mean=(0.5,) * 3, std=(0.5,) * 3, notes={"normalization": "as timm says"})
    given = {"init_from": "weights.pth"}
    settings, _ = choose(TINY_IMAGENET, LAPTOP, given, patch=16, start=Start(start, has_batch_norms=False))
    assert settings.views.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("given", "decay", "final", "start"),
    [
        ({"backbone": "vit_tiny", "optim.name": "sgd"}, 1e-4, None, 0.0),
        ({"method": "swav", "optim.name": "adamw"}, 0.04, 0.4, 0.0),
        ({"optim.name": "lars"}, 1e-6, None, 0.0),
    ],
)
def test_another_optimizer_keeps_no_value_of_the_recipes(
    given: dict[str, Any], decay: float, final: float | None, start: float
) -> None:
    optim = choose(TINY_IMAGENET, LAPTOP, given, patch=16 if "backbone" in given else None)[0].optim
    assert (optim.weight_decay, optim.weight_decay_final, optim.warmup_start) == (decay, final, start)


@pytest.mark.parametrize("method", ["dino", "swav", "moco"])
def test_muon_has_the_rates_of_lars(method: str) -> None:
    given = {"backbone": "mobilenetv3_small_050", "method": method}
    plans = [choose(TINY_IMAGENET, LAPTOP, given | {"optim.name": name})[0] for name in ("lars", "muon")]
    assert plans[1].optim.name == "muon"
    assert plans[0].lr * plans[0].batch_size == 256
    assert plans[1] == plans[0].model_copy(update={"optim": plans[0].optim.model_copy(update={"name": "muon"})})


def test_what_is_given_stays_and_the_rest_follows() -> None:
    settings, choices = choose(TINY_IMAGENET, LAPTOP, {"batch_size": 256, "epochs": 40})
    assert (settings.batch_size, settings.epochs, settings.lr) == (256, 40, 1.0)
    assert {c.setting: c.because for c in choices}["batch_size"] == "as you set it"
    settings, _ = choose(TINY_IMAGENET, LAPTOP, {"lr": 0.03})
    assert settings.optim.min_lr == pytest.approx(0.03 * 64 / 25_600)
    settings, _ = choose(TINY_IMAGENET, LAPTOP, {"optim.name": "adamw"})
    assert settings.lr == 0.001


def test_hours_set_the_length_and_say_what_is_given_up() -> None:
    budget = hours(2, images_per_second=100, pixels=2 * 64**2 + 2 * 36**2)
    settings, choices = choose(TINY_IMAGENET, LAPTOP, {}, budget=budget)
    assert settings.epochs == 28
    reason = {c.setting: c.because for c in choices}["epochs"]
    assert reason == "720,000 images seen in total fit into the hours; a full run sees 11,519,834"
    settings, _ = choose(TINY_IMAGENET, LAPTOP, {}, budget=hours(0.2, images_per_second=100, pixels=10_784))
    assert settings.steps == 1_125
    settings, choices = choose(ICONS, LAPTOP, {}, budget=hours(1000, images_per_second=100, pixels=10_784))
    assert settings.epochs == wanted_images(2_000) // (2_000 // 64 * 64)  # of whole batches
    assert "the hours allow" in {c.setting: c.because for c in choices}["epochs"]


def test_few_hours_make_views_smaller() -> None:
    pixels = 2 * 128**2 + 2 * 72**2
    sides = [
        choose(PHOTOS, LAPTOP, {}, budget=hours(number, images_per_second=25, pixels=pixels))[0].views.global_size
        for number in (8, 4, 1)
    ]
    assert sides == [128, 96, 96]


def test_hours_too_few_for_an_epoch_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"^hours=0\.05 is too short for one epoch of 25,000 images, which takes 0\.069 hours"
    ):
        choose(TINY_IMAGENET, LAPTOP, {}, budget=hours(0.05, images_per_second=100, pixels=10_784))


def test_hours_that_start_and_measurements_take_are_not_said_to_do_for_a_part_of_the_images() -> None:
    with pytest.raises(
        ValueError, match=r"beside 0\.1 for planning, start and measurements: give at least hours=7\.7\.$"
    ) as error:
        choose(TINY_IMAGENET, LAPTOP, {}, budget=Budget(0.101, 3.6, 1 / 10_784))
    assert "data.subset" not in str(error.value)


# ---- Memory -------------------------------------------------------------------------------------------------

MEMORY = Memory(fixed=0.2 * GB, per_image=0.02 * GB, norms=0.014 * GB, lean=0.006 * GB, buffered=0.0)


@pytest.mark.parametrize(
    ("free", "given", "expected"),
    [
        (8, {}, {}),
        (4, {}, {"batch_size": 128}),
        (1.2, {}, {"batch_size": 64, "accumulate": 2}),
        (0.8, {}, {"batch_size": 64, "accumulate": 2, "grad_checkpointing": "norms"}),
        (0.715, {}, {"batch_size": 64, "accumulate": 2, "grad_checkpointing": True}),
        (0.3, {}, {"batch_size": 4, "grad_checkpointing": "norms"}),
        (4, {"batch_size": 256}, {"accumulate": 2}),
        (1.2, {"batch_size": 256, "accumulate": 1}, None),
        (0.2, {}, None),
    ],
)
def test_a_run_is_made_to_fit(free: float, given: dict[str, Any], expected: dict[str, Any] | None) -> None:
    machine = Machine("cpu", "CPU", 1, 2, round(free * GB), "32")
    if expected is None:
        with pytest.raises(ValueError, match=r"batch_size=256 needs about 5\.3 GiB of memory in each process, and"):
            fit(MEMORY, machine, 256, given)
    else:
        assert {name: choice.value for name, choice in fit(MEMORY, machine, 256, given).items()} == expected


@pytest.mark.parametrize(
    ("free", "given", "remedy"),
    [
        (1.2, {"batch_size": 256, "accumulate": 1}, "leave out batch_size, so that what fits is chosen"),
        (0.8, {"grad_checkpointing": False, "batch_size": 256, "accumulate": 1}, "leave out batch_size, so that"),
        (0.26, {"grad_checkpointing": False}, "leave out grad_checkpointing, so that"),
        (0.26, {"grad_checkpointing": False, "batch_size": 256}, "leave out batch_size and grad_checkpointing, so"),
        (0.2, {"grad_checkpointing": False, "batch_size": 256}, "not even 2 images fit: use smaller views"),
    ],
)
def test_what_keeps_a_plan_from_fitting_is_to_be_left_out(free: float, given: dict[str, Any], remedy: str) -> None:
    machine = Machine("cpu", "CPU", 1, 2, round(free * GB), "32")
    with pytest.raises(ValueError, match=r"^batch_size=256 needs about .* free: ") as error:
        fit(MEMORY, machine, 256, given)
    assert remedy in str(error.value)
    assert "sslight plan" not in str(error.value)


@pytest.mark.parametrize(
    ("free", "processes", "more", "remedy"),
    [
        (1.2, 1, {}, "set batch_size=44, the largest that fits, or up to 126 with grad_checkpointing=true; `sslight p"),
        (1.2, 4, {}, "set batch_size=176, the largest that fits, or up to 504 with grad_checkpointing=true"),
        (1.2, 1, {"accumulate": 2}, "set batch_size=88, the largest that fits, or up to 252 with grad_checkpointing"),
        (5.01, 1, {}, "set grad_checkpointing=true, or batch_size=215, the largest without it"),
        (0.26, 1, {}, "set grad_checkpointing=norms and batch_size=2, the largest that fits"),
        (0.26, 8, {}, "set grad_checkpointing=norms and batch_size=16, the largest that fits"),
        (0.24, 1, {}, "not even 2 images fit"),
        (0.26, 8, {"compile": True}, "not even 2 images fit"),
        (1.2, 1, {"grad_checkpointing": True}, "set batch_size=126, the largest that fits; `sslight plan"),
        (
            1.2,
            1,
            {"method": "moco"},
            "set batch_size=32, the largest that fits and divides moco.queue_size, or up to 64",
        ),
    ],
)
def test_batches_that_are_proposed_are_ones_that_can_be_set(
    free: float, processes: int, more: dict[str, Any], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "predict_memory", lambda *_: MEMORY)
    batch, method = (512 if processes == 1 else 2048), more.get("method", "dino")
    small = {name: value for name, value in TINY.items() if name.partition(".")[0] not in ("dino", "swav", "moco")}
    settings = load_recipe(f"{method}_cnn_sslight_64", {**small, **more, "batch_size": batch})
    with pytest.raises(ValueError, match=rf"^batch_size={batch} needs about .* free: ") as error:
        check_memory(settings, "cpu", processes, round(free * GB))
    assert remedy in str(error.value)


def test_the_largest_batch_is_the_largest() -> None:
    most = largest_batch(MEMORY, 5.1 * GB)
    assert MEMORY.peak(most) <= 0.9 * 5.1 * GB < MEMORY.peak(most + 1)


def test_memory_grows_with_the_images_and_less_with_checkpointing() -> None:
    settings = load_recipe("dino_cnn_sslight_64", {"backbone": "test_resnet"})
    memory = predict_memory(settings, "cpu")
    assert memory.lean is not None
    assert 0.05 * memory.per_image < memory.lean <= memory.per_image
    double = predict_memory(
        load_recipe("dino_cnn_sslight_64", {"backbone": "test_resnet", "views.global_size": 128}), "cpu"
    )
    assert 2 < double.per_image / memory.per_image < 4


def test_a_named_recipe_that_cannot_fit_is_refused_with_a_batch_that_does() -> None:
    settings = load_recipe("dino_cnn_sslight_64", {**TINY, "batch_size": 4096})
    with pytest.raises(
        ValueError, match=r"batch_size=4096 needs about .* free: set batch_size=\d+, the largest that fits"
    ) as error:
        check_memory(settings, "cpu", 1, GB)
    fitting = int(str(error.value).partition("set batch_size=")[2].partition(",")[0])
    check_memory(settings.model_copy(update={"batch_size": fitting}), "cpu", 1, GB)


@pytest.mark.parametrize(("share", "mode"), [(2.0, False), (0.75, "norms")])
def test_checkpointing_is_as_little_as_fits(share: float, mode: Any) -> None:
    settings = load_recipe("dino_cnn_sslight_64", {**TINY, "backbone": "mobilenetv2_035", "batch_size": 512})
    need = predict_memory(settings, "cpu").peak(512)
    choice = lightest_that_fits(settings, "cpu", 1, round(share * need))
    assert choice.value == mode
    assert choice.because.endswith(f"{need / 2**30:,.1f} without, {share * need / 2**30:,.1f} are free")


def test_arithmetic_is_counted_for_each_image_on_no_device() -> None:
    settings = load_recipe("dino_cnn_sslight", {"backbone": "resnet18", "dino.head_output_dim": 64})
    state = torch.get_rng_state()
    flops = flops_per_image(settings)
    assert torch.equal(torch.get_rng_state(), state)
    # 1.81 G multiplications for 224 px (torchvision's table); the teacher once and the student three times that.
    pixels = 224**2
    views = 2 + 3 * (2 + 6 * 128**2 / pixels)
    assert flops == pytest.approx(2 * 1.81e9 * views, rel=0.05)
    assert flops_per_image(settings.model_copy(update={"grad_checkpointing": True})) == flops


@pytest.mark.parametrize("name", ["vit_tiny", "convnext_atto", "mobilenet_v2"])
def test_a_backward_pass_counts_twice_the_forward_pass_in_any_network(name: str) -> None:
    sizes = {"views.global_size": 64, "views.num_local": 0, "dino.head_hidden_dim": 8, "dino.head_output_dim": 8}
    settings = load_recipe("dino_cnn_sslight", {"backbone": name, "global_pair_weight": None, **sizes})
    network = build_backbone(name, image_size=64)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 64, 64))
    views, passes = 2, 3 + 1  # the trained network's three, and the teacher's one
    assert flops_per_image(settings) == pytest.approx(views * passes * counter.get_total_flops(), rel=0.02)
