"""Find a network's weights in a file: under any prefix, with any program's names, beside anything else."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslight.backbones.key_names import as_in_timm, other_names
from sslight.backbones.plain_files import Inert

MOST_PATCHES = 2**16
NAME_IT = "; name the network of the file"
_DEEPEST = 16
_MEAN_NETWORK = re.compile(r"(?:^|[._])(?:teacher|key|k|ema|momentum|target|averaged)(?:[._]|$)")
_CLASSIFIERS = {"classifier", "fc", "head", "heads"}  # may hold a norm of the backbone as well
# Counters and derived tables, which some versions and tools write and others do not.
_NOT_WEIGHTS = ("num_batches_tracked", "total_ops", "total_params", "relative_position_index", "attn_mask")


def tensors_in(content: Any) -> dict[str, Tensor]:
    """All tensors of nested dicts and of whole saved modules, by dotted path, except those of optimizers."""
    found: dict[str, Tensor] = {}
    seen = set()
    waiting = [("", content, 0)]
    while waiting:
        prefix, part, depth = waiting.pop()
        if not isinstance(part, dict) or id(part) in seen or depth > _DEEPEST:
            continue
        seen.add(id(part))
        for key, value in part.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{key}"] = value
            elif isinstance(part, Inert) and key in ("_parameters", "_buffers", "_modules"):  # of a module
                waiting.append((prefix, value, depth + 1))
            elif not str(key).startswith("optim"):
                waiting.append((f"{prefix}{key}.", value, depth + 1))
    return found


def load_matching(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, network: str = "student", strict: bool = False
) -> list[str]:
    """Put the weights of a network that are somewhere in ``tensors`` into ``module``, a timm network, in place.

    Position embeddings of another grid are resized.

    Args:
        tensors: From :func:`tensors_in`, of the file ``source``.
        network: ``student`` or ``teacher``, where there are both: the teacher is what a mean is called by.
        strict: Whether anything else in ``tensors`` is an error.

    Returns what was left out or changed, in sentences without a full stop. Raises ValueError if there is no such
    network, or its entries do not fit; they are listed and ``module`` is unchanged.
    """
    expected = module.state_dict()
    architecture = str(module.pretrained_cfg["architecture"])  # type: ignore[index]
    prefix, names = _best_place(tensors, architecture, list(expected), network, source)
    notes: list[str] = []
    state = {key: value for key, value in expected.items() if key.endswith(_NOT_WEIGHTS)}
    others = []
    for key, value in tensors.items():
        theirs = key.removeprefix(prefix) if key.startswith(prefix) else None
        if theirs in names:
            ours = names[theirs]
            value = value if ours == theirs else as_in_timm(architecture, ours, value)
            state[ours] = _adapted(module, ours, value, expected[ours], notes)
        elif not key.endswith(_NOT_WEIGHTS):
            others.append(key)
    own_parts = {theirs.partition(".")[0] for theirs in names} - _CLASSIFIERS
    left_over = [key for key in others if strict or (key.startswith(prefix) and _part(key, prefix) in own_parts)]
    _check_fit(module, state, left_over, source, architecture, strict=strict)
    if left_out := Counter(_part(key, prefix) for key in others):
        parts = _listed([f"{part} ({count} tensors)" for part, count in left_out.items()])
        notes.insert(0, f"left out, since it is no part of the backbone: {parts}")
    module.load_state_dict(state)
    return notes


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that must match the module entry by entry, in name and shape.

    Raises ValueError with all that is missing, left over or of another shape.
    """
    left_over = [key for key in state if key not in module.state_dict()]
    _check_fit(module, state, left_over, source, "", strict=True)
    module.load_state_dict(dict(state))


def _best_place(
    tensors: Mapping[str, Tensor], architecture: str, expected: list[str], network: str, source: str
) -> tuple[str, dict[str, str]]:
    """The prefix under which most entries of the network are, and their names there beside timm's."""
    needed = sum(not key.endswith(_NOT_WEIGHTS) for key in expected)
    most, places, names = 0, Counter[str](), {key: key for key in expected}
    for spelling in other_names(architecture, expected):
        found = Counter(key[:start] for key in tensors for start in _starts(key) if key[start:] in spelling)
        if found and max(found.values()) > most:
            most, places, names = max(found.values()), found, spelling
        if most >= needed:
            break
    near = [prefix for prefix, count in places.items() if count > 0.9 * most]
    asked = [prefix for prefix in near if bool(_MEAN_NETWORK.search(prefix)) == (network == "teacher")]
    if network != "student" and near and not asked:
        raise ValueError(f"{source} has no network {network!r}: choose student, or leave network out.")
    return min(asked or near or [""], key=lambda prefix: (-places[prefix], len(prefix))), names


def _starts(key: str) -> Iterable[int]:
    return (0, *(match.end() for match in re.finditer(r"\.", key)))


def _part(key: str, prefix: str) -> str:
    """The first word in which ``key`` differs from the path ``prefix``."""
    words, path = key.split("."), prefix.split(".")
    same = next((i for i, (word, step) in enumerate(zip(words, path, strict=False)) if word != step), 0)
    return words[same]


def _adapted(module: nn.Module, key: str, value: Tensor, expected: Tensor, notes: list[str]) -> Tensor:
    """An entry in the shape that ``module`` needs, if nothing is lost; else as it is."""
    if value.shape == expected.shape:
        return value
    if [side for side in value.shape if side != 1] == [side for side in expected.shape if side != 1]:
        return value.reshape(expected.shape)  # a linear layer as a convolution of one pixel
    if not (isinstance(module, VisionTransformer) and key == "pos_embed" and value.ndim == 3):
        return value
    tokens = 0 if module.no_embed_class else module.num_prefix_tokens
    patches, grid = value.shape[1] - tokens, list(module.patch_embed.grid_size)
    side = math.isqrt(max(patches, 0))
    if value.shape[2] != expected.shape[2] or side**2 != patches or not 0 < patches <= MOST_PATCHES:
        return value
    notes.append(f"the position embedding was resized from {side} x {side} to {grid[0]} x {grid[1]} patches")
    resized: Tensor = resample_abs_pos_embed(value, new_size=grid, old_size=[side, side], num_prefix_tokens=tokens)
    return resized


def _check_fit(
    module: nn.Module, state: Mapping[str, Tensor], left_over: list[str], source: str, name: str, *, strict: bool
) -> None:
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    both = [(key, state[key], own) for key, own in expected.items() if key in state]
    shapes = [f"{key} {list(a.shape)} instead of {list(b.shape)}" for key, a, b in both if a.shape != b.shape]
    apart = [(key, a, b) for key, a, b in both if a.is_floating_point() != b.is_floating_point()]
    kinds = [f"{key} {a.dtype} instead of {b.dtype}" for key, a, b in apart]
    problems = {"missing": missing, "left over": left_over, "of another shape": shapes, "of another kind": kinds}
    if not any(problems.values()):
        return
    weights = [key for key in expected if not key.endswith(_NOT_WEIGHTS)]
    fitting = len(weights) - len(missing) - len(shapes)
    if not strict and fitting < 0.5 * len(weights):
        raise ValueError(
            f"the weights in {source} are not those of {name}: {fitting} of {len(weights)} entries fit "
            f"(the first that does not: {[*missing, *shapes][0]}){NAME_IT}."
        )
    text = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
    patches = [key for key in shapes if key.startswith("patch_embed.proj.weight")]
    size = state["patch_embed.proj.weight"].shape[-1] if patches else 0
    remedy = f"; its patches are of {size} px: set patch_size={size}" if patches else ""
    raise ValueError(f"the weights in {source} do not fit the backbone {type(module).__name__}: {text}{remedy}.")


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
