"""Checkpoints in the original's format, written for a test."""

import pickle
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import GOLDEN

_BYTES = {"FloatStorage": 4, "LongStorage": 8}
_STREAM = GOLDEN / "checkpoints" / "DINO_mobilenet_v2_last_ckpt.data.pkl"


class CfgNode(dict[str, Any]):
    """Stands for the class of the original's configurations, a dict with attributes of its own."""

    __module__ = "fvcore.common.config"


class _Structure(pickle.Unpickler):
    """Tensors as the keys of their storages; all classes as what is needed to walk through."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_rebuild_tensor_v2":
            return lambda storage, *_: storage
        return name if module == "torch" else CfgNode if name == "CfgNode" else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return pid


def write_recorded_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The recorded checkpoint's own pickle (configuration, optimiser and all) with other tensors.

    The recorded file has 19 MB. Its pickle stream is kept byte for byte; ``tensors`` go to the names that
    they have in its ``state_dict``; all others become zeros.
    """
    with _STREAM.open("rb") as file:
        structure = _Structure(file).load()
    values = {structure["state_dict"][name][2]: value for name, value in tensors.items()}
    storages: dict[str, tuple[str, str, str, str, int]] = {}

    def collect(part: Any) -> None:
        if isinstance(part, tuple) and part[:1] == ("storage",):
            storages[part[2]] = part
        elif isinstance(part, dict | list | tuple):
            for each in part.values() if isinstance(part, dict) else part:
                collect(each)

    collect(structure)
    writer = torch._C.PyTorchFileWriter(str(path))
    stream = _STREAM.read_bytes()
    writer.write_record("data.pkl", stream, len(stream))
    writer.write_record("byteorder", sys.byteorder.encode(), len(sys.byteorder))
    for key, (_, kind, _, _, count) in storages.items():
        content = values[key].numpy().tobytes() if key in values else bytes(count * _BYTES[kind])
        assert len(content) == count * _BYTES[kind]
        writer.write_record(f"data/{key}", content, len(content))
    writer.write_end_of_file()


def original_content(method: str, backbone: str, state: Mapping[str, Tensor], **changes: Any) -> dict[str, Any]:
    """What the original saves, small: configuration, epoch and state."""
    config = CfgNode(
        SSL_METHOD=method,
        MODEL=CfgNode(BACKBONE_ARCH=backbone),
        VIT=CfgNode(PATCH_SIZE=16),
        MULTI_VIEWS_TRANSFORMS=CfgNode(GLOBAL_CROP_SIZE=64),
        DATA=CfgNode(MEAN=[0.485, 0.456, 0.406], STD=[0.229, 0.224, 0.225]),
    )
    for part in (config, *(value for value in config.values() if isinstance(value, CfgNode))):
        part.__dict__["__immutable__"] = False
    return {"config": config, "epoch": 7, "steps": 70, "state_dict": dict(state), **changes}


def write_original(
    monkeypatch: pytest.MonkeyPatch, path: Path, content: Mapping[str, Any], *, legacy: bool = False
) -> Path:
    """Save ``content`` as the original does, or as it did with PyTorch before 1.6."""
    modules = [types.ModuleType(name) for name in ("fvcore", "fvcore.common", "fvcore.common.config")]
    modules[-1].CfgNode = CfgNode  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        for module in modules:
            patch.setitem(sys.modules, module.__name__, module)
        torch.save(dict(content), path, _use_new_zipfile_serialization=not legacy)
    return path
