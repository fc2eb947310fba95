"""Configurations of the original implementation (saic-fi/SSLight), YAML and upper-case keys, as settings of ours."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sslight.config.original.defaults import DEFAULTS
from sslight.config.plain_yaml import flat_settings, parse_settings, read_named, shown

_VIEWS, _TWO = "MULTI_VIEWS_TRANSFORMS", "TWO_VIEWS_TRANSFORMS"

# One key of the original is one setting here, whatever the method.
# fmt: off
_SAME: dict[str, str] = {
    "MODEL.BACKBONE_ARCH": "backbone", "OUTPUT_DIR": "output", "SEED": "seed", "WORKERS": "workers",
    "LOG_STEP": "log_every", "DATA.MEAN": "views.mean", "DATA.STD": "views.std",
    "TRAIN.CHECKPOINT_PERIOD": "checkpoint.every_epochs", "TRAIN.JOINT_LINEAR_PROBE": "probe.linear",
    f"{_VIEWS}.GLOBAL_CROPS_SCALE": "views.global_scale", f"{_VIEWS}.LOCAL_CROPS_SCALE": "views.local_scale",
    f"{_VIEWS}.GLOBAL_CROP_SIZE": "views.global_size", f"{_VIEWS}.LOCAL_CROP_SIZE": "views.local_size",
    f"{_VIEWS}.LOCAL_CROPS_NUMBER": "views.num_local", f"{_VIEWS}.COLOR_JITTER_INTENSITY": "views.jitter",
    f"{_VIEWS}.GAUSSIAN_BLUR_PROB": "views.blur_prob", "SOLVER.BASE_LR": "lr", "SOLVER.MIN_LR": "optim.min_lr",
    "SOLVER.START_WARMUP": "optim.warmup_start", "SOLVER.WARMUP_EPOCHS": "optim.warmup_epochs",
    "SOLVER.TOTAL_EPOCHS": "epochs", "SOLVER.MOMENTUM": "optim.momentum", "SOLVER.WEIGHT_DECAY": "optim.weight_decay",
    "SOLVER.WEIGHT_DECAY_END": "optim.weight_decay_final", "SOLVER.MILESTONES": "optim.milestones",
}
_SAME_BY_METHOD: dict[str, dict[str, str]] = {
    "dino": {
        "MODEL.MODEL_MOMENTUM": "dino.teacher_momentum", "SOLVER.FREEZE_LAST_LAYER": "dino.freeze_last_layer_epochs",
        "DINO.STUDENT_TEMP": "dino.student_temp", "DINO.TEACHER_TEMP": "dino.teacher_temp",
        "DINO.WARMUP_TEACHER_TEMP": "dino.warmup_teacher_temp",
        "DINO.WARMUP_TEACHER_TEMP_EPOCHS": "dino.warmup_teacher_temp_epochs",
        "DINO.CENTER_MOMENTUM": "dino.center_momentum", "DINOHead.NUM_LAYERS": "dino.head_layers",
        "DINOHead.HIDDEN_SIZE": "dino.head_hidden_dim", "DINOHead.BOTTLENECK_DIM": "dino.head_bottleneck_dim",
        "DINOHead.OUTPUT_DIM": "dino.head_output_dim", "DINOHead.USE_BN_IN_HEAD": "dino.head_batch_norm",
        "DINOHead.NORM_LAST_YEAR": "dino.norm_last_layer",
    },
    "swav": {
        "SWAV.NMB_PROTOTYPES": "swav.num_prototypes", "SWAV.TEMPERATURE": "swav.temperature",
        "SWAV.EPSILON": "swav.epsilon", "SWAV.SINKHORN_ITERATIONS": "swav.sinkhorn_iterations",
        "SWAV.QUEUE_LENGTH": "swav.queue_size", "SWAV.EPOCH_QUEUE_STARTS": "swav.queue_start_epoch",
        "SWAV.FREEZE_PROTOTYPES_EPOCHS": "swav.freeze_prototypes_epochs", "SWAV.NUM_LAYERS": "swav.head_layers",
        "SWAV.HIDDEN_SIZE": "swav.head_hidden_dim", "SWAV.OUTPUT_DIM": "swav.head_output_dim",
        "SWAV.USE_BN_IN_HEAD": "swav.head_batch_norm",
    },
    "moco": {
        "MOCO.TEMPERATURE": "moco.temperature", "MOCO.QUEUE_LENGTH": "moco.queue_size",
        "MOCO.MOMENTUM": "moco.key_momentum", "MOCO.NUM_LAYERS": "moco.head_layers",
        "MOCO.HIDDEN_SIZE": "moco.head_hidden_dim", "MOCO.OUTPUT_DIM": "moco.head_output_dim",
        "MOCO.USE_BN_IN_HEAD": "moco.head_batch_norm",
    },
}
# fmt: on
_FIRST_ENTRY = {
    f"{_VIEWS}.RANDOM_HORIZONTAL_FLIP_PROB": "views.flip_prob",
    f"{_VIEWS}.COLOR_JITTER_PROB": "views.jitter_prob",
    f"{_VIEWS}.GREYSCALE_PROB": "views.grayscale_prob",
}
_OPTIMIZERS = {name: name for name in ("lars", "adamw", "sgd")}
_SCHEDULES = {"cos": "cosine", "cosine": "cosine", "multistep": "multistep"}

# What is fixed here: another value cannot be followed and is refused.
_FIXED: dict[str, tuple[Any, str]] = {
    "MODEL.MODEL_MOMENTUM_END": (1.0, "the teacher's momentum always rises to 1"),
    "SOLVER.WD_FACTOR_FOR_BIAS": (0.0, "biases and norms never decay"),
    "SOLVER.WD_FACTOR_FOR_DW": (0.0, "depth-wise kernels never decay"),
    "SOLVER.LARS_EXCLUDE_BIAS": (True, "LARS never adapts biases and norms"),
    "SOLVER.LARS_EXCLUDE_DW": (False, "LARS always adapts depth-wise kernels"),
    f"{_VIEWS}.CROPS_FOR_ASSIGN": ([0, 1], "the global views always make the targets"),
    "STAGE": ("TRAIN", "evaluation has its own commands"),
}

_LARGEST_NUMBER = 1e15

# Said when a configuration sets them.
_WITHOUT_EFFECT: dict[str, str] = {
    "LOG_GRAD": "the gradient norm is always in metrics.jsonl",
    "TRAIN.NUM_CLASSES": "classes are counted in the data",
    "TRAIN.DATASET": "the data's own kind is found out from data.train",
    "VAL.DATASET": "the data's own kind is found out from data.val",
    "VAL.BATCH_SIZE": "features are computed in batches of their own size",
    "VAL.SUBSET_FILE_PATH": "the whole of data.val is used",
    "NODE_RANK": "torchrun or SLURM gives it",
    "WORLD_SIZE": "torchrun or SLURM gives it; it had no effect there either",
    "DISTRIBUTED": "torchrun or SLURM decides it",
    "DIST_BACKEND": "nccl for GPUs, gloo for CPUs",
    "DIST_URL": "torchrun or SLURM gives it",
    "TENSORBOARD_PATH": "events are written to the run folder",
    f"{_VIEWS}.CROP_PROB": "it had no effect there either: every view is a crop",
    **{f"{_TWO}.{name}": "this section had no effect there either" for name in DEFAULTS[_TWO]},
}


@dataclass(frozen=True)
class Translation:
    """Flat settings of this program, and a sentence for every key that has no effect or another one here."""

    settings: dict[str, Any]
    notes: list[str]


def translate_original(path: str | Path, pairs: Iterable[str] = ()) -> Translation:
    """Settings equal to a configuration of the original: one of its YAML files and ``KEY VALUE KEY VALUE ...`` over it.

    Raises ValueError if the file cannot be read, a key is unknown (the nearest are named), or a value has no
    counterpart here.
    """
    content = parse_settings(read_named(Path(path), "configuration"), f"configuration {path}")
    given = flat_settings(content) | _read_pairs(list(pairs))
    unknown = [key for key in given if key not in _keys()]
    if unknown:
        nearest = get_close_matches(unknown[0], _keys(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else "its configuration has no such key."
        raise ValueError(f"{shown(unknown[0])} is not a key of the original: {hint}")
    for key, value in given.items():
        _check_kind(key, value, _keys()[key])
    return _translate(_keys() | given, set(given))


def _keys() -> dict[str, Any]:
    return {
        f"{section}.{name}" if section else name: value
        for section, values in DEFAULTS.items()
        for name, value in values.items()
    }


def _read_pairs(words: list[str]) -> dict[str, Any]:
    if len(words) % 2:
        raise ValueError(f"{shown(words[-1])} has no value: the original's settings are pairs, KEY VALUE KEY VALUE ...")
    return {key: _python_value(text) for key, text in zip(words[::2], words[1::2], strict=True)}


def _python_value(text: str) -> Any:
    try:
        return ast.literal_eval(text)  # as the original reads them: True, [0.3, 1.0], 1e-6; else a word
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the original's default, as the original did."""
    match default:
        case None:  # of a section without effect
            return
        case bool():
            kind, fits = "true or false", isinstance(value, bool)
        case int() | float():
            kind, fits = "a number", _is_number(value)
        case str():
            kind, fits = "a text", isinstance(value, str)
        case _:
            kind = "a list of numbers" if key == "SOLVER.MILESTONES" else f"a list of {len(default)} numbers"
            fits = isinstance(value, list | tuple) and all(_is_number(item) for item in value)
            fits = fits and (key == "SOLVER.MILESTONES" or len(value) == len(default))
    if not fits:
        raise ValueError(f"{key} {shown(value)} is not {kind}, such as the original's default {default}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER


def _translate(values: Mapping[str, Any], given: set[str]) -> Translation:
    method = _choice("SSL_METHOD", values, {name: name for name in _SAME_BY_METHOD})
    for key, (fixed, why) in _FIXED.items():
        if values[key] != fixed:
            raise ValueError(f"{key} {shown(values[key])} has no counterpart: {why} here; leave it at {fixed}.")
    notes = [f"{key} has no effect here: {why}." for key, why in _WITHOUT_EFFECT.items() if key in given]
    of_method = _SAME_BY_METHOD[method]
    settings = {"method": method} | {name: values[key] for key, name in (_SAME | of_method).items()}
    without = sorted(given & {key for keys in _SAME_BY_METHOD.values() for key in keys} - of_method.keys())
    notes += [f"{key} had no effect there: it is not of {values['SSL_METHOD']}." for key in without]
    settings |= _data(values) | _views(values, method, given, notes) | _solver(values, method, notes)
    a_gpu, gpus, nodes = (values[key] for key in ("TRAIN.BATCH_SIZE", "NUM_GPUS_PER_NODE", "N_NODES"))
    settings["batch_size"] = batch_size = a_gpu * gpus * nodes
    product = f"TRAIN.BATCH_SIZE {a_gpu} a GPU × NUM_GPUS_PER_NODE {gpus} × N_NODES {nodes}"
    notes.append(f"batch_size={batch_size} is {product}.")
    if "SEED" in given:
        notes.append("SEED never reached the original's training processes; here it decides weights, order and views.")
    return Translation(settings, notes)


def _choice(key: str, values: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    value = str(values[key]).lower()
    if value not in choices:
        raise ValueError(f"{key} {shown(values[key])} has no counterpart: choose one of {', '.join(choices)}.")
    return choices[value]


def _data(values: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(values["DATA.PATH_TO_DATA_DIR"])
    settings: dict[str, Any] = {
        "data.train": [str(folder / values["TRAIN.FILE_NAME"])],
        "data.val": [str(folder / values["VAL.FILE_NAME"])],
    }
    if values["TRAIN.SUBSET_FILE_PATH"]:
        settings["data.subset"] = values["TRAIN.SUBSET_FILE_PATH"]
    if values["TRAIN.CHECKPOINT_FILE_PATH"]:
        settings["init_from"] = values["TRAIN.CHECKPOINT_FILE_PATH"]
    return settings


def _views(values: Mapping[str, Any], method: str, given: set[str], notes: list[str]) -> dict[str, Any]:
    """Lists of which the original read one entry, and the view counts and weights that it wanted typed thrice."""
    solarization = f"{_VIEWS}.SOLARIZATION_PROB"
    settings: dict[str, Any] = {name: values[key][0] for key, name in _FIRST_ENTRY.items()}
    settings["views.solarize_prob"] = [0.0, values[solarization][1]]
    ignored = {key: (values[key][1], values[key][0]) for key in _FIRST_ENTRY} | {
        solarization: (values[solarization][0], 0)
    }
    for key, (entry, harmless) in ignored.items():
        if key in given and entry != harmless:
            notes.append(f"{key}: its entry {entry} had no effect there and has none here.")
    num_local = values[f"{_VIEWS}.LOCAL_CROPS_NUMBER"]
    if (counts := values[f"{_VIEWS}.NMB_CROPS"]) != [2, num_local]:
        raise ValueError(
            f"{_VIEWS}.NMB_CROPS {counts} contradicts LOCAL_CROPS_NUMBER {num_local}: set it to [2, {num_local}]."
        )
    if method != "swav" and values[f"{method.upper()}.GLOBAL_ONLY"]:
        settings["views.num_local"] = num_local = 0
        notes.append("GLOBAL_ONLY became views.num_local=0; the original computed local views and threw them away.")
    global_weight, local_weight = values[f"{_VIEWS}.LAMBDAS"]
    if abs(global_weight + local_weight - 1) > 1e-5:
        raise ValueError(
            f"{_VIEWS}.LAMBDAS {[global_weight, local_weight]} has no counterpart: the weights must sum to 1; "
            "scale them and SOLVER.BASE_LR."
        )
    plain_mean = 1 / (1 + num_local)  # 2 of 2 + 2 L pairs in DINO and SwAV, 1 of 1 + L queries in MoCo
    settings["global_pair_weight"] = None if abs(global_weight - plain_mean) < 1e-5 else global_weight
    if settings["global_pair_weight"] is None and num_local:
        notes.append(f"{_VIEWS}.LAMBDAS is the plain mean over pairs to six digits: global_pair_weight=null, exactly.")
    return settings


def _solver(values: Mapping[str, Any], method: str, notes: list[str]) -> dict[str, Any]:
    optimizer = _choice("SOLVER.OPTIMIZING_METHOD", values, _OPTIMIZERS)
    schedule = _choice("SOLVER.SCHEDULER", values, _SCHEDULES)
    settings: dict[str, Any] = {"optim.name": optimizer, "optim.schedule": schedule}
    if schedule == "multistep" and values["SOLVER.WARMUP_EPOCHS"]:
        notes.append("The original crashes with a multi-step schedule and a warm-up; here both work.")
    clip = values["SOLVER.CLIP_GRAD"]
    settings["optim.clip_grad"] = clip or None
    settings["precision"] = "16" if values["USE_FP16"] else "32"
    if method == "swav" and clip:
        notes.append("SOLVER.CLIP_GRAD had no effect on SwAV there; here it has.")
    if method == "swav" and values["USE_FP16"]:
        notes.append("USE_FP16 had no effect on SwAV there; here it has.")
    if values["MODEL.BACKBONE_ARCH"].startswith("vit"):
        settings["drop_path"] = values["VIT.DROP_PATH_RATE"]
        settings["patch_size"] = values["VIT.PATCH_SIZE"]
    return settings
