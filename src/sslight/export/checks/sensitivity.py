"""8 bits where the network tolerates them: the best activation ranges, and which layers stay in float."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sslight.export.checks.agreement import Agreement

_Node = TypeVar("_Node")


class Quantizer(Protocol):
    """A float32 file that can be quantized again and again."""

    @property
    def methods(self) -> Sequence[str]:
        """Ways to find the ranges of activations."""

    @property
    def layers(self) -> Sequence[str]:
        """Names of the layers that can stay in float."""

    def write(self, path: Path, *, method: str, float_layers: Iterable[str]) -> None:
        """Write the file in 8 bits, but for some of its layers."""


@dataclass(frozen=True)
class Quantization:
    """How a file in 8 bits came to be; dB: signal-to-noise ratios on calibration images that gave no ranges."""

    method: str  # by which the ranges of activations were found
    by_method: Mapping[str, float]  # dB with all layers in 8 bits
    float_layers: Sequence[str]  # the others compute in 8 bits
    num_layers: int
    num_bytes_in_8_bits: int  # size of the file with all layers in 8 bits
    by_layer: Mapping[str, float]  # dB with this layer alone in 8 bits, worst first; empty if all hold as they are
    signal_to_noise: float  # dB of the file as it is
    accepted: bool  # whether it held the tolerance on these images
    analysis: "Quantization | None" = None  # of each layer, of a file that held and was refused on other images

    def __str__(self) -> str:
        """A sentence part on what was found."""
        by_layer = self.by_layer if self.analysis is None else self.analysis.by_layer
        worst = ", ".join(f"{name} ({noise:.0f} dB)" for name, noise in list(by_layer.items())[:3])
        kept = f"{len(self.float_layers)} of {self.num_layers} layers stay in float"
        return f"ranges by {self.method}; {kept}" + (f"; worst alone in 8 bits: {worst}" if worst else "")

    def remedy(self, form: str) -> str:
        """What may help where the file, of this format, was refused."""
        whole = self.by_method[self.method]
        if self.accepted:
            images = "give more calibration images, and such as data.check has (this file held on those that judged it)"
            if self.analysis is None:
                return images
            kept, noise = len(self.analysis.float_layers), self.analysis.signal_to_noise
            return f"{images}, or set int8.float_layers (with {kept} in float {whole:.0f} dB become {noise:.0f})"
        if len(self.float_layers) < self.num_layers // 2:  # then a number was given
            return f"leave int8.float_layers out, which keeps the worst layers in float (all in 8 bits: {whole:.0f} dB)"
        return (
            f"export {form.removesuffix('int8')}fp16, about as small as a file that is half in float: "
            f"{len(self.float_layers)} layers in float took this one from {whole:.0f} to {self.signal_to_noise:.0f} dB"
        )


def quantize_within(
    quantizer: Quantizer,
    path: Path,
    *,
    float_layers: int | None,
    judge: Callable[[Path], Agreement],
    accepts: Callable[[Agreement], bool],
    say: Callable[[str], None],
) -> Quantization:
    """Write the file with the best method, and with as few layers in float as needed.

    ``judge`` compares a file with the network on calibration images. With ``float_layers=None``, the worst layers stay
    in float until the file is accepted (``accepts``), at most half of them; otherwise that number does.
    """
    layers = quantizer.layers
    if float_layers is not None and float_layers > len(layers):
        raise ValueError(f"int8.float_layers={float_layers} is more than the {len(layers)} layers of the network.")

    def judged(method: str, floats: Iterable[str]) -> Agreement:
        quantizer.write(path, method=method, float_layers=floats)
        return judge(path)

    wholes = {method: judged(method, ()) for method in quantizer.methods}
    method = max(wholes, key=lambda name: wholes[name].signal_to_noise)
    quantizer.write(path, method=method, float_layers=())
    whole, found, kept, by_layer = path.stat().st_size, wholes[method], list[str](), dict[str, float]()
    if float_layers or (float_layers is None and not accepts(found)):
        say(f"8 bits for each of {len(layers)} layers alone")
        alone = {name: judged(method, [each for each in layers if each != name]).signal_to_noise for name in layers}
        by_layer = dict(sorted(alone.items(), key=lambda item: item[1]))
        worst, most = list(by_layer), max(1, len(layers) // 2)
        number = float_layers or _fewest(lambda number: accepts(judged(method, worst[:number])), most)
        kept = worst[:number]
        found = judged(method, kept)
    noises = {name: agreement.signal_to_noise for name, agreement in wholes.items()}
    return Quantization(
        method, noises, kept, len(layers), whole, by_layer, found.signal_to_noise, accepted=accepts(found)
    )


def groups(nodes: Iterable[_Node], *, is_product: Callable[[_Node], bool]) -> list[list[_Node]]:
    """Each convolution or product with the sums and activations after it: they stay in float together."""
    found: list[list[_Node]] = []
    for node in nodes:
        if is_product(node) or not found:
            found.append([])
        found[-1].append(node)
    return found


def _fewest(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 to ``most`` that holds, found by doubling and halving; ``most`` if none does."""
    least, number = 0, 1
    while number < most and not holds(number):
        least, number = number, min(2 * number, most)
    while number - least > 1:
        middle = (least + number) // 2
        least, number = (least, middle) if holds(middle) else (middle, number)
    return number
