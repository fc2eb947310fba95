"""The rules behind ``auto``: from the images, the machine and the time allowed to settings, each with its reason.

Nothing here reads a file or a clock. The reasons are told at length in docs/own-data.md, with their measurements.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from sslight.config import PretrainSettings, ViewSettings, build_settings, read_recipe
from sslight.data import Glance
from sslight.pretraining.sizes import (
    Budget,
    Machine,
    Start,
    batch_for,
    global_side,
    local_side,
    short_images,
    view_pixels,
    wanted_images,
)

_LONG_STEPS = 40_000  # nearer by ratio to the 250,000 published steps than to those
_SMALL_SET = 100_000
_LARS_PEAK = 1.0
_SCALED_MEGAPIXELS = 6
_LEAST_SHARE = 0.01  # of the images, that a run on a part of them is proposed for
_BETTER_WITH_MOCO = ("mobilenet_v2", "mobilenetv2_")  # in short runs; MobileNetV3-Small is better with DINO
_FEWEST_WITH_MOCO = 5_000  # images; measured with 4,500, 25,000 and 50,000
_OF_THE_START = "that of the weights in init_from"

_RATES = {"adamw": (0.001, 0.04), "sgd": (0.03, 1e-4), "lars": (0.48, 1e-6)}
"""Rate for 256 images and weight decay of an optimizer that takes the place of the recipe's."""
_RATES_OF = {"muon": "lars"}  # Muon is LARS for all but 1×1 kernels, which move a quarter farther


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and why."""

    setting: str
    value: Any
    because: str


def choose(
    images: Glance,
    machine: Machine,
    given: Mapping[str, Any],
    *,
    patch: int | None = None,
    budget: Budget | None = None,
    fitted: Mapping[str, Choice] = MappingProxyType({}),
    start: Start | None = None,
    method: str | None = None,
) -> tuple[PretrainSettings, list[Choice]]:
    """Settings for these images on this machine, and the reasons; what is ``given`` (dotted names) stays as it is.

    Args:
        images, machine: What there is.
        given: What the user sets.
        patch: Side of the backbone's patches in px, or None if it has none.
        budget: The time allowed; None without a limit.
        fitted: What :func:`fit` found, by setting.
        start: The weights of ``init_from``.
        method: Where it is settled already.

    Raises:
        ValueError: ``given`` breaks a rule, or the hours are too few for one epoch.
    """
    rules = partial(_Rules, images, machine, given, patch, budget, fitted, start)
    settled = method or asked_method(given)
    may_take_moco = settled in (None, "moco") and start is None and images.num_images >= _FEWEST_WITH_MOCO
    if may_take_moco and given.get("backbone", "mobilenet_v2").startswith(_BETTER_WITH_MOCO):
        short = rules("moco", better_than_dino=True)
        try:
            found = short.settings()
        except ValueError:  # of what does not go with MoCo, which may not have been asked for
            if settled:
                raise
        else:
            if not short.is_long:
                return found
    return rules(settled or "dino").settings()


def asked_method(given: Mapping[str, Any]) -> str | None:
    """The method that the user sets, by its name or by one of its settings, such as ``swav.epsilon``.

    Raises ValueError if there are settings of two, and no name.
    """
    of_methods = {key.partition(".")[0]: key for key in given if key.startswith(("dino.", "swav.", "moco."))}
    if (named := given.get("method")) is None and len(of_methods) > 1:
        raise ValueError(f"{' and '.join(of_methods.values())} are settings of different methods: keep those of one.")
    return named or next(iter(of_methods), None)


@dataclass
class _Rules:
    images: Glance
    machine: Machine
    given: Mapping[str, Any]
    patch: int | None
    budget: Budget | None
    fitted: Mapping[str, Choice]
    start: Start | None
    method: str
    better_than_dino: bool = False  # if the run is short

    def __post_init__(self) -> None:
        self.choices: list[Choice] = []
        self.affords_locals = True
        side, self.why_side = global_side(self.images, self.machine, self.budget, self.patch, self.start)
        self.side = self.given.get("views.global_size", side)
        family = "vit" if self.patch and self.method == "dino" else "cnn"
        kind, self.why = "sslight", "the closest one; the settings below differ from it"
        if self.better_than_dino:
            both = self.given.get("optim.name", "muon") == "muon" and self.given.get("moco.koleo_weight") != 0
            if both and self.side < 224:
                kind = "next"
            what = "MoCo with KoLeo and Muon" if kind == "next" else "MoCo"
            self.why = f"{what}: better than DINO in short runs of MobileNetV2s at 64 px; the settings below differ"
        self.recipe = f"{self.method}_{family}_{kind}{'_64' if self.side < 224 else ''}"
        self.base = read_recipe(self.recipe).values
        self.published = read_recipe(f"{self.method}_{family}_sslight").values
        self.short = read_recipe(f"{self.method}_{family}_sslight_64").values
        self.why_short = "as measured in short runs on few images"
        if family == "vit":
            self.why_short = "as in the recipe for short runs, in which ViTs learn later than CNNs (docs/recipes.md)"
        if self.patch and "patch_size" in self.base and "patch_size" not in self.given:
            self._patches()
        self.patch = self.patch and self.given.get("patch_size", self.patch)
        if self.patch and "views.global_size" not in self.given:
            self.side = max(1, round(self.side / self.patch)) * self.patch

    def _patches(self) -> None:
        """Patches that cut a global view into about 14 × 14, or those of the weights that the run starts from."""
        if self.start is not None and self.start.info.patch_size is not None:
            self.patch = self._add("patch_size", self.start.info.patch_size, _OF_THE_START)
        else:
            self.patch = min((4, 8, 16), key=lambda side: abs(math.log(self.side / side / 14)))
            self._add("patch_size", self.patch, "about 14 × 14 patches in a global view, as published")

    def settings(self) -> tuple[PretrainSettings, list[Choice]]:
        self._length()
        self._views()
        self._rates()
        {"dino": self._dino, "swav": self._swav, "moco": self._moco}[self.method]()
        if self.start is not None:
            self._continue(self.start)
        self._machine()
        start = Choice("recipe", self.recipe, self.why)
        length = {"epochs": None, "steps": None}  # the recipe's gives way
        chosen = {choice.setting: choice.value for choice in self.choices}
        return build_settings(self.base | length | chosen, self.given), [start, *self.choices]

    def _add(self, setting: str, value: Any, because: str) -> Any:
        """Choose a value, or take the one that the user has set; returns it."""
        if setting in self.given:
            value, because = self.given[setting], "as you set it"
        self.choices.append(Choice(setting, value, because))
        return value

    def _take(self, long: bool, *settings: str) -> None:
        """Settings as in the published recipe or in the one for short runs on few images."""
        for setting in settings:
            if long:
                self._add(setting, self.published[setting], "as published, for long runs on many images")
            else:
                self._add(setting, self.short[setting], self.why_short)

    def _seen(self) -> tuple[float, str]:
        """Images that the run sees, all epochs together, and why; sets the number of local views that it can afford."""
        number, wanted = self.images.num_images, wanted_images(self.images.num_images)
        local = self.given.get("views.local_size", local_side(self.side, self.patch))
        if self.budget is None:
            if self.machine.device == "cuda":
                return wanted, f"{wanted:,.0f} images seen in total: a full run for this many images"
            seen = short_images(number)
            return seen, f"{seen:,.0f} images seen in total: a short run, as measured; hours=H allows more"
        pixels, most = (
            view_pixels(self.side, local, self.given.get("views.num_local", n))
            for n in (2, self.published["views.num_local"])
        )
        few = self.budget.images(pixels)
        self.affords_locals = self.budget.images(most) >= wanted
        seen = min(wanted, few)
        if seen < number:
            share, hours = 0.8 * seen / number, self.budget.hours
            epoch = number * self.budget.seconds_per_pixel * pixels / 3600
            rest = hours - self.budget.seconds / 3600  # planning, start, measurements
            remedy = f"give at least hours={1.1 * (rest + epoch):.2g}"
            if share >= _LEAST_SHARE:
                remedy += f", or use part of the images, data.subset={share:.1g}"
            raise ValueError(
                f"hours={hours:g} is too short for one epoch of {number:,} images, which takes {epoch:.2g} hours here, "
                f"beside {rest:.2g} for planning, start and measurements: {remedy}."
            )
        if seen == wanted:
            return (
                seen,
                f"{seen:,.0f} images seen in total are enough; the hours allow {few / wanted:,.3g} times as many",
            )
        return seen, f"{seen:,.0f} images seen in total fit into the hours; a full run sees {wanted:,.0f}"

    def _length(self) -> None:
        number = self.images.num_images
        seen, why = self._seen()
        if given_epochs := self.given.get("epochs"):
            seen = given_epochs * number
        batch = self.fitted.get("batch_size")
        proposed = batch_for(number, seen, self.machine.processes) if batch is None else (batch.value, batch.because)
        self.batch = self._add("batch_size", *proposed)
        per_epoch = self.steps_per_epoch = max(1, number // self.batch)
        epochs = seen / self.batch / per_epoch
        if "steps" in self.given:
            self.epochs = self._add("steps", self.given["steps"], why) / per_epoch
        elif self.budget is not None and epochs < 10 and not given_epochs:  # whole epochs would leave time unused
            self.epochs = self._add("steps", math.floor(epochs * per_epoch), why) / per_epoch
        else:
            self.epochs = self._add("epochs", max(1, math.floor(epochs + 1e-9)), why)
        self.steps = self.epochs * per_epoch
        self.is_long = self.steps >= _LONG_STEPS

    def _views(self) -> None:
        side, gray = self.side, self.images.is_gray
        self._add("views.global_size", side, self.why_side)
        if self.given.get("views.num_local") != 0:
            self._add("views.local_size", local_side(side, self.patch), "objects as large as in global views (SSLight)")
        if fitted := self.fitted.get("views.num_local"):
            self._add("views.num_local", fitted.value, fitted.because)
        else:
            self._take(self.is_long and self.affords_locals, "views.num_local")
        self._add("views.blur_sigma", [0.1, round(side * 2 / 224, 1)], "2 px at 224 px, in proportion")
        self._take(self.is_long, "views.jitter_prob")
        if gray:
            self._add("views.jitter", [0.4, 0.4, 0.0, 0.0], "gray images have neither hue nor saturation")
            self._add("views.grayscale_prob", 0.0, "they are gray")
            self._add("views.solarize_prob", [0.0, 0.0], "inverting intensities changes their meaning")
        else:
            self._take(self.is_long, "views.grayscale_prob", "views.solarize_prob")
        if self.start is None:
            form, why = ("standard", "as published")
            if not self.is_long:
                form, why = "smooth", "as in the recipes for short runs; measured with MobileNets"
            self._add("init", form, why)

    def _rates(self) -> None:
        own = self.base["optim.name"]
        name = self.given.get("optim.name", own)
        own, optimizer = (_RATES_OF.get(optimizer, optimizer) for optimizer in (own, name))
        peak = "a peak of 1.0 with LARS, as measured at batches of 16, 32 and 64"
        if name == "muon":
            peak = "a peak of 1.0, as with LARS; Muon was measured at a batch of 64"
        lr, low, why = self.published["lr"], self.published["optim.min_lr"], "as published"
        if optimizer != own:
            lr, decay = _RATES[optimizer]
            self._add("optim.weight_decay", decay, f"usual with {optimizer}")
            self._add("optim.weight_decay_final", 0.4 if optimizer == "adamw" else None, f"usual with {optimizer}")
            self._add("optim.warmup_start", 0.0, f"usual with {optimizer}")
            low, why = lr * self.batch / 25_600, f"usual with {optimizer}"
        elif optimizer == "lars" and lr * self.batch / 256 < _LARS_PEAK:
            lr, low = _LARS_PEAK * 256 / self.batch, _LARS_PEAK / 100
            why = peak
        elif optimizer == "adamw" and not self.is_long:
            lr, why = self.short["lr"], self.why_short
        if self.start is not None:
            lr, low, why = lr / 10, low / 10, "a tenth of a new network's, which cost loaded weights accuracy"
        lr = self._add("lr", float(f"{lr:.4g}"), why)
        if low >= lr * self.batch / 25_600:
            low, why = lr * self.batch / 25_600, "a hundredth of the peak"
        self._add("optim.min_lr", float(f"{low:.3g}"), why)
        most = 0.05 * self.steps
        warm, why = most, "5 % of the run, as published"
        if optimizer == "lars" and not self.is_long:
            few = max(40, 0.005 * self.steps)
            if few < most:
                warm, why = few, "40 steps or half a percent, as measured with LARS"
        self._add("optim.warmup_epochs", float(f"{warm / self.steps_per_epoch:.3g}"), why)
        if self.method == "swav" and optimizer == own:
            self._take(self.is_long, "optim.warmup_start")

    def _continue(self, start: Start) -> None:
        """What keeps loaded weights from being lost."""
        info, usual = start.info, ViewSettings()
        self._add("backbone", info.name, _OF_THE_START)
        for setting, its in (("mean", info.mean), ("std", info.std)):
            if its != getattr(usual, setting) and not info.assumes_normalization:
                self._add(f"views.{setting}", list(its), _OF_THE_START)
        if self.method != "dino":
            alone = float(f"{min(0.3, self.epochs / 3):.3g}")
            self._add("freeze_backbone_epochs", alone, "the new head learns first, as measured")
        if start.has_batch_norms:
            self._add("freeze_norms", True, "views have other statistics than the images of the weights, as measured")

    def _dino(self) -> None:
        many = self.images.num_images >= _SMALL_SET
        self._take(many, "dino.head_hidden_dim", "dino.head_output_dim")
        self._take(self.is_long, "dino.teacher_momentum", "dino.center_momentum", "dino.freeze_last_layer_epochs")
        if self.is_long or self.batch > 32:
            self._take(self.is_long, "dino.teacher_temp")
        else:
            self._add("dino.teacher_temp", 0.02, "with batches of 32 and less, targets stay uniform at higher ones")
        warm = round(self.epochs / 4) if self.is_long else 0
        self._add("dino.warmup_teacher_temp_epochs", warm, "a quarter of a long run, as published; none in a short one")

    def _swav(self) -> None:
        self._take(self.is_long, "swav.epsilon", "swav.freeze_prototypes_epochs")
        self._add(
            "swav.num_prototypes",
            2 * self.batch if self.batch < 1024 else 3000,
            "two per image of a batch, as measured at 64",
        )
        if self.batch < 1024:
            self._add("swav.queue_size", 0, "the batch fills the prototypes")
        else:
            self._add("swav.queue_start_epoch", math.ceil(0.075 * self.epochs), "the published share of the epochs")

    def _moco(self) -> None:
        self._take(self.is_long, "moco.key_momentum")
        if self.base["optim.name"] == "muon":
            for setting in ("optim.name", "moco.koleo_weight"):
                self._add(setting, self.base[setting], "beyond SSLight, as measured at a batch of 64")
        number = self.images.num_images
        most = min(4096 if number < _SMALL_SET else 65536, number // 2)
        size = max(1, most // self.batch) * self.batch
        why = "a multiple of the batch, at most half of the images"
        self._add("moco.queue_size", size, why if size <= number / 2 else "one batch, the least there is")

    def _machine(self) -> None:
        machine = self.machine
        fast = {"bf16": "fast on this device", "16": "this GPU has no bf16", "32": "bf16 is slow on this processor"}
        self._add("precision", machine.precision, fast[machine.precision])
        workers = max(1, machine.cores // machine.processes - 1)
        self._add("workers", workers, f"{machine.cores} cores, one left for each training process")
        for setting in ("accumulate", "grad_checkpointing"):
            if setting in self.fitted:
                self._add(setting, self.fitted[setting].value, self.fitted[setting].because)
        if (size := self.images.megapixels) >= _SCALED_MEGAPIXELS:
            self._add("data.scaled_decoding", True, f"{size:.0f} megapixels: full decoding would take most of the time")
        many = math.ceil(self.epochs)
        self._add("checkpoint.every_epochs", math.ceil(many / 10), "at most ten are kept")
        if self.given.get("data.val") or self.given.get("probe.train") or self.given.get("probe.knn"):
            self._add("probe.every_epochs", math.ceil(many / 30), "at most 30 measurements; best.pt is the best")
