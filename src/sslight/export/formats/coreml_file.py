"""Core ML packages with an image as input, in float16. Needs the extra ``coreml``; they only run on macOS."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslight.export.formats.library import library
from sslight.export.network import Exportable


def write_coreml(exportable: Exportable, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the network for one RGB image, and read back what the package says of itself; ``facts`` are stored in it.

    Raises ValueError if the package is not what was requested.
    """
    size, names = exportable.info.image_size, exportable.output_names
    of_images = replace(exportable, input="nchw")  # Core ML gives the values 0 to 255 of a picture in this layout
    picture = {"input": "image", "shape": [size, size], "dtype": "RGB picture", "normalised_inside": True}
    about = facts["sslight"] | {"preprocessing": facts["sslight"]["preprocessing"] | picture}
    facts = facts | {"sslight": about}
    example = torch.zeros(1, 3, size, size)
    with library("coreml"):
        coreml = import_module("coremltools")
        program = torch.export.export(of_images.fused(), (example,)).run_decompositions({})
        model = coreml.convert(
            program,
            inputs=[coreml.ImageType(name="images", shape=(1, 3, size, size), color_layout=coreml.colorlayout.RGB)],
            outputs=[coreml.TensorType(name=name, dtype=np.float32) for name in names],
            convert_to="mlprogram",
            compute_precision=coreml.precision.FLOAT16,
            minimum_deployment_target=coreml.target.iOS16,
            skip_model_load=True,
        )
        model.user_defined_metadata.update({key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
        model.save(str(path))
        found = coreml.models.MLModel(str(path), skip_model_load=True).get_spec()
    (image,) = found.description.input
    taken, kind = image.type.imageType, found.WhichOneof("Type")
    color = taken.ColorSpace.Name(taken.colorSpace)
    given = [output.name for output in found.description.output]
    read = {key: found.description.metadata.userDefined[key] for key in facts}
    if (kind, taken.width, taken.height, color, given) != ("mlProgram", size, size, "RGB", names) or any(
        json.loads(read[key]) != value for key, value in facts.items()
    ):
        raise ValueError(
            f"format=coreml is not written: the package is a {kind} for {taken.width} × {taken.height} px, {color}, "
            f"with outputs {', '.join(given)}, which is not what was asked for: export another format, and report it."
        )
