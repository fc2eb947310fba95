"""What a compiler for a device cannot plan in an ONNX graph: shapes that follow from computed values."""

from pathlib import Path

import onnx

# Their results are shapes, or have shapes that follow from values.
_DYNAMIC = {"Shape", "Size", "Range", "NonZero", "ConstantOfShape", "Loop", "If", "Scan", "Unique", "Compress"}
_PLACES = {  # operator → the inputs that say shapes and places, not values
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Pad", "Split", "TopK", "CumSum"), (1,)),
    **dict.fromkeys(("Gather", "GatherND", "GatherElements"), (1,)),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"), (1,)),
    "Slice": (1, 2, 3, 4),
    "Resize": (1, 2, 3),
}


def not_static(path: Path) -> list[str]:
    """Each fault in words; none for a graph whose shapes are all known before it runs."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    graph = model.graph
    known = {each.name for each in graph.initializer} | {
        name for node in graph.node if node.op_type == "Constant" for name in node.output
    }
    faults = [f"{node.op_type} {node.name}" for node in graph.node if node.op_type in _DYNAMIC]
    faults += [
        f"input {at} of {node.op_type} {node.name} is computed"
        for node in graph.node
        for at in _PLACES.get(node.op_type, ())
        if at < len(node.input) and node.input[at] and node.input[at] not in known
    ]
    shapes = {each.name: each.type.tensor_type for each in (*graph.value_info, *graph.input, *graph.output)}
    for name in (name for node in graph.node for name in node.output if name and name not in known):
        found = shapes.get(name)
        if found is None or not found.HasField("shape"):
            faults.append(f"{name} has no known shape")
        elif not all(dim.HasField("dim_value") for dim in found.shape.dim):
            faults.append(f"{name} has a shape that is open")
    return faults
