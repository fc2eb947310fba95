"""LiteRT files: float32, float16 weights, and static quantization to 8 bits. Needs the extra ``litert``."""

import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sslight.export.checks.sensitivity import groups
from sslight.export.formats.library import library
from sslight.export.network import Exportable, ExportNetwork

_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_FACTS, _LABELS = "sslight.json", "labels.txt"
_MOST_BYTES = 2**24  # of the facts that are read; a small archive may hold a large file


class _Named(nn.Module):
    """The network with names for its outputs, which the signature of the file takes over."""

    def __init__(self, network: ExportNetwork, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self._names = network, names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.network(images)
        return dict(zip(self._names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


def write_litert(exportable: Exportable, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the network for one image at a time, in float32; ``facts`` are stored in the file."""
    example = exportable.example()
    with library("litert"):
        network = without_expansions(_Named(exportable.fused(), exportable.output_names).eval(), example)
        model = import_module("litert_torch").convert(network, sample_kwargs={"images": example})
        model.export(str(path))
        path.write_bytes(_with_the_nearest_of_pytorch(path.read_bytes()))
    append_facts(path, facts)


def without_expansions(network: nn.Module, images: Tensor) -> nn.Module:
    """The network without expansions of a factor or summand, which products and sums do themselves; else as it is.

    The converter loses the order of axes of what is expanded (litert-converter 0.5 and MobileViTv2: its attention
    expands a context vector ``[B, D, P, 1]`` before the product with ``[B, D, P, N]``).
    """
    aten = torch.ops.aten
    program = torch.export.export(network, (), {"images": images})
    left_out = False
    for node in list(program.graph.nodes):
        if node.target not in (aten.expand.default, aten.expand_as.default):
            continue
        whole, source = node.meta["val"].shape, node.args[0]
        if len(source.meta["val"].shape) == len(whole) and all(_has_whole_operand(user, node) for user in node.users):
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)
            left_out = True
    return program.module() if left_out else network


def _has_whole_operand(user: torch.fx.Node, expanded: torch.fx.Node) -> bool:
    """Whether a sum or product is of the same shape without the expansion of this operand."""
    aten = torch.ops.aten
    if user.target not in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor):
        return False
    others = [each for each in user.args if isinstance(each, torch.fx.Node) and each is not expanded]
    return any(each.meta["val"].shape == expanded.meta["val"].shape for each in others)


def _with_the_nearest_of_pytorch(model: bytes) -> bytes:
    """A model that resizes to the nearest pixel as PyTorch does: from the corners of pixels, not from their centers.

    litert-converter 0.5 takes their centers, as PyTorch's ``nearest-exact`` would. Both are the same for whole factors;
    from 3 to 7 px (GhostNets at 224 px) they are not, and a float32 file was only 10 dB from its network.
    """
    buffers, schema = (
        import_module(f"ai_edge_litert.{name}") for name in ("tools.flatbuffer_utils", "schema_py_generated")
    )
    found = buffers.read_model_from_bytearray(bytearray(model))
    codes = [code.builtinCode for code in found.operatorCodes]
    operators = [each for graph in found.subgraphs for each in graph.operators]
    resizing = [each for each in operators if codes[each.opcodeIndex] == schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR]
    for each in resizing:
        each.builtinOptions.halfPixelCenters = False
    return bytes(buffers.convert_object_to_bytearray(found)) if resizing else model


def halve_weights(source: Path, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the weights of a file from :func:`write_litert` in float16; the runtime computes in what the device can."""
    with library("litert-fp16"):
        types = import_module("ai_edge_quantizer.qtyping")
        quantizer = import_module("ai_edge_quantizer.quantizer").Quantizer(str(source))
        how = types.OpQuantizationConfig(
            weight_tensor_config=types.TensorQuantizationConfig(16, dtype=types.TensorDataType.FLOAT),
            compute_precision=types.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        quantizer.update_quantization_recipe(".*", types.TFLOperationName.ALL_SUPPORTED, how, "float_casting")
        path.write_bytes(quantizer.quantize(enable_progress_report=False).quantized_model)
    append_facts(path, facts)


class LiteRTQuantizer:
    """A float32 file from :func:`write_litert`: weights to int8 by output channel, activations to int8.

    Everything computes in 8 bits, but in a network with layer norms (see the ONNX files) products with weights alone.
    ``images [N, ...]``, as the network takes them, give the ranges of the activations. Outputs stay float32.
    """

    methods: Sequence[str] = ("minmax",)  # the library has no other for whole files

    def __init__(self, exportable: Exportable, source: Path, images: npt.NDArray[Any]) -> None:
        self._source = source
        self._normed = any(isinstance(each, nn.LayerNorm | nn.GroupNorm) for each in exportable.network.modules())
        details = import_module("ai_edge_litert.interpreter").Interpreter(str(source))
        names = {each["index"]: each["name"] for each in details.get_tensor_details()}
        operators = details._get_ops_details()
        found = groups(operators, is_product=lambda each: each["op_name"] in _PRODUCTS)
        with_product = [group for group in found if group[0]["op_name"] in _PRODUCTS]
        scopes = [["".join(f"{names[at]};" for at in each["outputs"]) for each in group] for group in with_product]
        self._scopes = dict(zip(_short_names([group[0] for group in scopes]), scopes, strict=True))
        self.layers: Sequence[str] = list(self._scopes)
        with library("litert-int8"):
            calibration = import_module("ai_edge_quantizer.calibrator")
            calibrator = calibration.Calibrator(
                str(source),
                num_threads=torch.get_num_threads(),
                mode=calibration.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
                # The default, a moving average of the extremes, cuts off what single images need: a MobileNetV3 of two
                # epochs came to a mean cosine of 0.959 instead of 0.995.
                qsv_update_func=import_module("ai_edge_quantizer.utils.qsv_utils").min_max_update,
            )
            calibrator.calibrate({"serving_default": [{"images": image[None]} for image in images]}, self._recipe(()))
            self._ranges = calibrator.get_model_qsvs()

    def write(self, path: Path, *, method: str, float_layers: Iterable[str]) -> None:
        """Write the file in 8 bits, but for some of its layers."""
        assert method in self.methods
        with library("litert-int8"):
            quantizer = import_module("ai_edge_quantizer.quantizer").Quantizer(str(self._source))
            quantizer.load_quantization_recipe(self._recipe(float_layers).get_quantization_recipe())
            found = quantizer.quantize(self._ranges, enable_progress_report=False)
            path.write_bytes(_mended(found.quantized_model))

    def _recipe(self, float_layers: Iterable[str]) -> Any:
        names = import_module("ai_edge_quantizer.qtyping").TFLOperationName
        recipe = import_module("ai_edge_quantizer.recipe_manager").RecipeManager()
        for name in map(names, _PRODUCTS) if self._normed else [names.ALL_SUPPORTED]:
            recipe.add_static_config(".*", name, activation_num_bits=8, weight_num_bits=8)
        recipe.add_quantization_config(".*", names.OUTPUT, algorithm_key="no_quantize")
        for scope in (scope for layer in float_layers for scope in self._scopes[layer]):
            pattern = f"^{re.escape(scope)}$"
            recipe.add_quantization_config(pattern, names.ALL_SUPPORTED, algorithm_key="no_quantize")
        return recipe


def _short_names(scopes: Sequence[str]) -> list[str]:
    """The last parts of each scope, as few as no other ends with; the same scopes are numbered."""
    paths = [scope.rstrip(";").split("/") for scope in scopes]
    names = list[str]()
    for path in paths:
        ends = (path[-length:] for length in range(1, len(path) + 1))
        end = next((end for end in ends if sum(other[-len(end) :] == end for other in paths) == 1), path)
        name, number = "/".join(end), 2
        while name in names:
            name, number = f"{'/'.join(end)} {number}", number + 1
        names.append(name)
    return names


def _mended(model: bytes) -> bytes:
    """A quantized model that runs, with its outputs in float.

    ai-edge-quantizer 0.10 counts the end of the graph as a consumer with the number -1, and so gives the last operator
    the float copy of a tensor that is also an output (features, where logits come last): the file cannot be run. If the
    last operator is in float, both take the copy, but the signature still names the tensor in 8 bits. If it is in 8
    bits behind features in float, it takes a copy in 8 bits, and the graph gives that where the signature names theirs.
    """
    buffers, schema = (
        import_module(f"ai_edge_litert.{name}") for name in ("tools.flatbuffer_utils", "schema_py_generated")
    )
    found = buffers.read_model_from_bytearray(bytearray(model))
    codes = [code.builtinCode for code in found.operatorCodes]
    conversions = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE)
    for graph in found.subgraphs:
        in_8_bits = {
            int(each.outputs[0]): int(each.inputs[0])
            for each in graph.operators
            if codes[each.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
        }
        for each in graph.operators:
            whole = all(graph.tensors[at].type == schema.TensorType.INT8 for at in each.outputs)
            if whole and codes[each.opcodeIndex] not in conversions:
                each.inputs = [in_8_bits.get(int(at), int(at)) for at in each.inputs]
        in_float_before = {
            int(each.outputs[0]): int(each.inputs[0])
            for each in graph.operators
            if codes[each.opcodeIndex] == schema.BuiltinOperator.QUANTIZE
            and graph.tensors[each.inputs[0]].type == schema.TensorType.FLOAT32
        }
        graph.outputs = [in_float_before.get(int(at), int(at)) for at in graph.outputs]
        in_float = {whole: copy for copy, whole in in_8_bits.items() if copy in graph.outputs}
        for named in (each for signature in found.signatureDefs for each in signature.outputs):
            named.tensorIndex = in_float.get(named.tensorIndex, named.tensorIndex)
    return bytes(buffers.convert_object_to_bytearray(found))


class LiteRTRunner:
    """A file in LiteRT's own runtime on the CPU, one image at a time."""

    def __init__(self, path: Path, *, threads: int) -> None:
        interpreter = import_module("ai_edge_litert.interpreter").Interpreter
        self._path, self._interpreter = path, interpreter(str(path), num_threads=threads)
        self._run = self._interpreter.get_signature_runner()

    @property
    def facts(self) -> dict[str, Any]:
        """What the file says of itself."""
        if not zipfile.is_zipfile(self._path):
            return {}
        with zipfile.ZipFile(self._path) as archive, archive.open(_FACTS) as file:
            found: dict[str, Any] = json.loads(file.read(_MOST_BYTES))
        return found

    def __call__(self, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """``[B, ...]`` → one array ``[B, ...]`` for each output."""
        rows = [self._run(images=image[None]) for image in images]
        names = [name for name in ("features", "logits", "probabilities") if name in rows[0]]
        return [np.concatenate([row[name] for row in rows]) for name in names]


def append_facts(path: Path, facts: dict[str, Any]) -> None:
    """As the metadata of TensorFlow Lite are: a ZIP archive behind the model, which the runtime does not read."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_FACTS, json.dumps(facts, ensure_ascii=False))
        if "classes" in facts:
            archive.writestr(_LABELS, "".join(f"{name}\n" for name in facts["classes"]))
