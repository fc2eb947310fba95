"""Multi-crop views of one image (Caron et al., SwAV, NeurIPS 2020; sampling of SSLight, ICLR 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index as as_integer

import numpy as np
import numpy.typing as npt
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor

from sslight.config import ViewSettings, load_recipe
from sslight.views.compiled import BoolArray, Float64Array, Int64Array, UInt8Array
from sslight.views.filters import blur, resize_boxes
from sslight.views.geometry import UNIFORMS_PER_BOX, sample_boxes
from sslight.views.photometric import HUE, NO_JITTER, interleave, recolor

_MAX_KEY_LENGTH = 4
# Uniform numbers that a view takes: its box, then one for each of these (jitter has four of both last kinds).
_FLIP, _JITTER, _GRAY, _BLUR, _RADIUS, _SOLARIZE = range(UNIFORMS_PER_BOX, UNIFORMS_PER_BOX + 6)
_FACTORS = slice(_SOLARIZE + 1, _SOLARIZE + 5)
_ORDER = slice(_SOLARIZE + 5, _SOLARIZE + 9)
_UNIFORMS_PER_VIEW = _SOLARIZE + 9


@dataclass(frozen=True)
class ViewParameters:
    """Everything random about the V views of one image; row v belongs to view v, global views first.

    Attributes:
        boxes: [V, 4] int64, (top, left, height, width) in px of the image.
        flip: [V] bool.
        jitter: [V] bool, whether there is color jitter.
        jitter_order: [V, 4] int64, the order of brightness (0), contrast (1), saturation (2) and hue (3).
        jitter_factors: [V, 4] float64, the factor of operation k in column k; hue in turns.
        gray: [V] bool.
        blur_sigma: [V] float64, standard deviation in px of the view; 0 means no blur.
        solarize: [V] bool.
    """

    boxes: Int64Array
    flip: BoolArray
    jitter: BoolArray
    jitter_order: Int64Array
    jitter_factors: Float64Array
    gray: BoolArray
    blur_sigma: Float64Array
    solarize: BoolArray

    def in_words(self, view: int) -> str:
        """What is done to one view, in its order."""
        done = ["flip"] if self.flip[view] else []
        if self.jitter[view]:
            names = ("brightness", "contrast", "saturation", "hue")
            factors = self.jitter_factors[view]
            done += [
                f"{names[k]} {factors[k]:+.2f}" if k == HUE else f"{names[k]} × {factors[k]:.2f}"
                for k in self.jitter_order[view]
            ]
        done += ["gray"] if self.gray[view] else []
        done += [f"blur {self.blur_sigma[view]:.1f} px"] if self.blur_sigma[view] > 0 else []
        done += ["solarize"] if self.solarize[view] else []
        return ", ".join(done) or "unchanged"


class MultiCrop:
    """Cuts an image into global and local views and changes each: crop, flip, jitter, gray, blur, solarize.

    Everything random comes from one Philox stream that is addressed by the caller's key, so views depend
    neither on the process that makes them nor on what was drawn before. Instances do not change and may be
    shared by threads and pickled to processes.

    Args:
        num_global: Global views of an image.
        num_local: Local views of an image.
        global_size: Side of a global view in px.
        local_size: Side of a local view in px.
        global_scale: Smallest and largest share of the image area in a global view.
        local_scale: Smallest and largest share of the image area in a local view.
        aspect_ratio: Narrowest and widest crop, as width over height.
        flip_prob: Probability of mirroring left to right.
        jitter: Strengths of brightness, contrast, saturation (factors from 1 ± value, not below 0) and hue
            (turns within ± value, at most 0.5); 0 leaves the operation out.
        jitter_prob: Probability of color jitter.
        grayscale_prob: Probability of turning gray.
        blur_prob: Probability of blur: first global view, other global views, local views.
        blur_sigma: Smallest and largest standard deviation of the blur in px.
        solarize_prob: Probability of solarizing: first global view, other global views.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        num_global: int = 2,
        num_local: int = 6,
        global_size: int = 224,
        local_size: int = 96,
        global_scale: tuple[float, float] = (0.14, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.14),
        *,
        aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
        jitter_prob: float = 0.8,
        grayscale_prob: float = 0.2,
        blur_prob: tuple[float, float, float] = (1.0, 0.1, 0.5),
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        solarize_prob: tuple[float, float] = (0.0, 0.2),
    ) -> None:
        _check_counts(1, num_global=num_global, global_size=global_size, local_size=local_size)
        _check_counts(0, num_local=num_local)
        _check_intervals(1.0, global_scale=global_scale, local_scale=local_scale)
        _check_intervals(float("inf"), aspect_ratio=aspect_ratio, blur_sigma=blur_sigma)
        _check_shares(1, flip_prob=(flip_prob,), jitter_prob=(jitter_prob,), grayscale_prob=(grayscale_prob,))
        _check_shares(3, blur_prob=blur_prob)
        _check_shares(2, solarize_prob=solarize_prob)
        _check_jitter(jitter)
        self.num_global, self.num_local = num_global, num_local
        self.global_size, self.local_size = global_size, local_size
        self._aspect_ratio = (float(aspect_ratio[0]), float(aspect_ratio[1]))
        self._flip_prob, self._jitter_prob, self._grayscale_prob = flip_prob, jitter_prob, grayscale_prob
        self._blur_sigma = blur_sigma
        groups = [1, num_global - 1, num_local]
        scales = np.repeat([global_scale, global_scale, local_scale], groups, axis=0)
        self._scale_low, self._scale_high = np.ascontiguousarray(scales.T)
        self._blur_prob = np.repeat(blur_prob, groups)
        self._solarize_prob = np.repeat([*solarize_prob, 0.0], groups)
        strength = np.array(jitter, dtype=np.float64)
        self._factor_low = np.maximum(NO_JITTER - strength, [0.0, 0.0, 0.0, -0.5])
        self._factor_span = NO_JITTER + strength - self._factor_low

    @classmethod
    def from_recipe(cls, name: str) -> "MultiCrop":
        """The views of a recipe, by its name or by the path of a YAML file.

        Raises:
            ValueError: there is no such recipe, or it is wrong.
        """
        return build_multi_crop(load_recipe(name).views)

    @property
    def num_views(self) -> int:
        """Global and local views of an image."""
        return self.num_global + self.num_local

    def __call__(self, image: UInt8Array | Tensor, key: Sequence[int]) -> list[Tensor]:
        """The finished views of an image.

        Args:
            image: Pixels [3, H, W] uint8 RGB; fastest when channels-last in memory.
            key: One to four integers ≥ 0 that name the random numbers, such as (seed, epoch, index).

        Returns:
            num_views tensors [3, S, S] uint8, global ones first, channels-last in memory.

        Raises:
            ValueError: not such an image, or not such a key.
        """
        pixels = _pixels(image)
        parameters = self.draw(pixels.shape[0], pixels.shape[1], key)
        return self.apply(pixels.transpose(2, 0, 1), parameters)

    def draw(self, height: int, width: int, key: Sequence[int]) -> ViewParameters:
        """Draw all that is random about the views of an image of this size in px; ``key`` as for a call.

        Raises:
            ValueError: not such a key, or an image without pixels.
        """
        if height < 1 or width < 1:
            raise ValueError(f"the image is {width} × {height} px: views need at least one pixel; leave this file out.")
        uniforms = _stream(key).random((self.num_views, _UNIFORMS_PER_VIEW))
        boxes = sample_boxes(height, width, uniforms, self._scale_low, self._scale_high, self._aspect_ratio)
        smallest, largest = self._blur_sigma
        radius = smallest + (largest - smallest) * uniforms[:, _RADIUS]
        return ViewParameters(
            boxes=boxes,
            flip=uniforms[:, _FLIP] < self._flip_prob,
            jitter=uniforms[:, _JITTER] < self._jitter_prob,
            jitter_order=uniforms[:, _ORDER].argsort(axis=1),
            jitter_factors=self._factor_low + self._factor_span * uniforms[:, _FACTORS],
            gray=uniforms[:, _GRAY] < self._grayscale_prob,
            blur_sigma=np.where(uniforms[:, _BLUR] < self._blur_prob, radius, 0.0),
            solarize=uniforms[:, _SOLARIZE] < self._solarize_prob,
        )

    def most_shrinking(self, height: int, width: int) -> float:
        """How many times smaller an image of this size in px may become with no crop smaller than its view."""
        narrowest = min(self._aspect_ratio[0], 1 / self._aspect_ratio[1])
        shortest = np.minimum(min(height, width), np.sqrt(height * width * self._scale_low * narrowest))
        sizes = np.repeat([self.global_size, self.local_size], [self.num_global, self.num_local])
        return float((shortest / sizes).min())

    def draw_boxes(self, height: int, width: int, num_draws: int, rng: np.random.Generator) -> Int64Array:
        """``num_draws`` draws N of the boxes alone, with the distribution of ``draw``, for an image of this size in px.

        Returns:
            Boxes [N, V, 4] as (top, left, height, width) in px, global views first.
        """
        uniforms = rng.random((num_draws * self.num_views, UNIFORMS_PER_BOX))
        low, high = (np.tile(scale, num_draws) for scale in (self._scale_low, self._scale_high))
        boxes = sample_boxes(height, width, uniforms, low, high, self._aspect_ratio)
        return boxes.reshape(num_draws, self.num_views, 4)

    def apply(self, image: UInt8Array | Tensor, parameters: ViewParameters) -> list[Tensor]:
        """The views of an image with given parameters; shapes as for a call.

        Raises:
            ValueError: not such an image, or parameters that were drawn for another image size or MultiCrop.
        """
        out_globals = np.empty((self.num_global, self.global_size, self.global_size, 3), np.uint8)
        out_locals = np.empty((self.num_local, self.local_size, self.local_size, 3), np.uint8)
        self.apply_into(image, parameters, out_globals, out_locals)
        groups = (torch.from_numpy(out).permute(0, 3, 1, 2) for out in (out_globals, out_locals))
        return [view for group in groups for view in group.unbind()]

    def apply_into(
        self,
        image: UInt8Array | Tensor,
        parameters: ViewParameters,
        out_globals: UInt8Array,
        out_locals: UInt8Array | None,
    ) -> None:
        """Write the views of an image into given memory, without a further copy.

        Args:
            image: Pixels [3, H, W] uint8 RGB.
            parameters: Result of ``draw`` for the size of this image.
            out_globals: [G, S, S, 3] uint8; each view contiguous (as in a slice [:, b] of a batch).
            out_locals: [L, s, s, 3] uint8, likewise; may be None without local views.

        Raises:
            ValueError: not such an image, parameters for something else, or memory of another shape.
        """
        pixels = _pixels(image)
        height, width = pixels.shape[:2]
        boxes = parameters.boxes
        if len(boxes) != self.num_views or (boxes[:, :2] + boxes[:, 2:] > (height, width)).any():
            raise ValueError(
                f"the parameters do not fit an image of {width} × {height} px and {self.num_views} views: "
                f"draw them for this image with this MultiCrop."
            )
        given = (out_globals, np.empty((0, 0, 0, 3), np.uint8) if out_locals is None else out_locals)
        if (len(given[0]), len(given[1])) != (self.num_global, self.num_local):
            raise ValueError(
                f"memory for {len(given[0])} global and {len(given[1])} local views "
                f"was given: this MultiCrop makes {self.num_global} and {self.num_local}."
            )
        sizes = (self.global_size, self.local_size)
        for name, out, size in zip(("out_globals", "out_locals"), given, sizes, strict=True):
            _check_memory(name, out, size)
        planes = [np.empty((len(out), 3, size, size), np.uint8) for out, size in zip(given, sizes, strict=True)]
        resize_boxes(pixels, boxes, parameters.flip, *planes)
        factors = np.where(parameters.jitter[:, None], parameters.jitter_factors, NO_JITTER)
        groups = (slice(0, self.num_global), slice(self.num_global, self.num_views))
        for out, resized, size, group in zip(given, planes, sizes, groups, strict=True):
            flat = resized.reshape(len(out), 3, size * size)
            recolor(flat, parameters.jitter_order[group], factors[group], parameters.gray[group])
            blur(resized, parameters.blur_sigma[group])
            for v, solarize in enumerate(parameters.solarize[group].tolist()):
                interleave(flat[v], solarize, out[v])


def warm_up() -> None:
    """Compile all kernels, or load them from numba's cache: seconds the first time, then well below one.

    Call it before worker processes are forked, so that they inherit the machine code.
    """
    MultiCrop(global_size=4, local_size=4)(np.zeros((3, 4, 4), np.uint8), (0,))


def build_multi_crop(settings: ViewSettings) -> MultiCrop:
    """The views that the settings describe (mean and std are for ``normalize``)."""
    return MultiCrop(**settings.model_dump(exclude={"mean", "std"}))


class _Key(ISeedSequence):
    """Gives Philox its key. As the argument ``key`` it costs seven times as much: entropy is gathered first."""

    def __init__(self, words: npt.NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> npt.NDArray[np.uint64]:
        return self._words


def _stream(key: Sequence[int]) -> np.random.Generator:
    """The random numbers of a key: two integers are Philox's key, two its counter; no two streams overlap."""
    words = [as_integer(part) for part in key]
    if not 1 <= len(words) <= _MAX_KEY_LENGTH or min(words) < 0 or max(words) >= 1 << 64:
        raise ValueError(
            f"key={tuple(key)} is not a key for random numbers: give one to four integers from 0 to 2^64 - 1, "
            f"such as (seed, epoch, index)."
        )
    first, second, third, fourth = words + [0] * (_MAX_KEY_LENGTH - len(words))
    # The lowest word of the counter counts the numbers drawn; the next tells (5,) from (5, 0).
    counter = np.array([0, len(words), third, fourth], dtype=np.uint64)
    philox_key = _Key(np.array([first, second], dtype=np.uint64))
    return np.random.Generator(np.random.Philox(philox_key, counter=counter))  # type: ignore[arg-type]  # stub too narrow


def _pixels(image: UInt8Array | Tensor) -> UInt8Array:
    """The image as contiguous pixels [H, W, 3]; copied only where necessary."""
    is_bytes = image.dtype == (torch.uint8 if isinstance(image, Tensor) else np.uint8)
    if not is_bytes or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(
            f"the image has shape {tuple(image.shape)} and dtype {image.dtype}: views are cut from "
            f"uint8 pixels [3, height, width]; convert it to RGB first."
        )
    if isinstance(image, Tensor):
        # torch copies a planar image faster than numpy does.
        return image.permute(1, 2, 0).contiguous().numpy()
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def _check_memory(name: str, out: UInt8Array, size: int) -> None:
    if len(out) and (out.shape[1:] != (size, size, 3) or out.dtype != np.uint8 or not out[0].flags.c_contiguous):
        raise ValueError(
            f"{name} has shape {out.shape} and dtype {out.dtype}: views are written as uint8 "
            f"[views, {size}, {size}, 3], each of them contiguous; give such memory."
        )


def _check_counts(smallest: int, **values: int) -> None:
    for name, value in values.items():
        if value < smallest:
            raise ValueError(f"{name}={value} is too small: give an integer of at least {smallest}.")


def _check_intervals(largest: float, **values: Sequence[float]) -> None:
    for name, value in values.items():
        if len(value) != 2 or not 0.0 < value[0] <= value[1] <= largest or value[1] == float("inf"):
            rule = f"0 < smallest ≤ largest ≤ {largest:g}" if largest < float("inf") else "0 < smallest ≤ largest"
            raise ValueError(f"{name}={tuple(value)} is not an interval: give two numbers, {rule}.")


def _check_shares(length: int, **values: Sequence[float]) -> None:
    for name, value in values.items():
        if len(value) != length or not all(0.0 <= share <= 1.0 for share in value):
            shown = value[0] if length == 1 else tuple(value)
            what = "a probability" if length == 1 else f"{length} probabilities"
            raise ValueError(f"{name}={shown} is not {what}: give {length} number{'s' * (length > 1)} from 0 to 1.")


def _check_jitter(jitter: Sequence[float]) -> None:
    if len(jitter) != 4 or not all(0.0 <= strength < float("inf") for strength in jitter) or jitter[3] > 0.5:
        raise ValueError(
            f"jitter={tuple(jitter)} is not four strengths: give brightness, contrast, saturation "
            f"(each ≥ 0) and hue (0 to 0.5)."
        )
