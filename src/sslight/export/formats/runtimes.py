"""The files that this machine can run, and what runs them."""

from sslight.export.formats.executorch_file import ExecuTorchRunner
from sslight.export.formats.litert_file import LiteRTRunner
from sslight.export.formats.onnx_file import OnnxRunner

RUNTIMES: dict[str, tuple[type[OnnxRunner | LiteRTRunner | ExecuTorchRunner], str]] = {
    ".onnx": (OnnxRunner, "onnxruntime"),
    ".tflite": (LiteRTRunner, "ai-edge-litert"),
    ".pte": (ExecuTorchRunner, "executorch"),
}
"""Of a suffix: what runs such a file, and the package that it needs."""
