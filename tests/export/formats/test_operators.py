"""Default ONNX exports have no operators of dynamic shape, which compilers for accelerators refuse."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from sslight.backbones import BackboneInfo, build_backbone
from sslight.config import ExportSettings
from sslight.export.formats.onnx_file import OnnxRunner, write_onnx
from sslight.export.network import Exportable, prepare
from sslight.export.task import ExportResult
from tests.export.exports import MEAN, STD
from tests.export.formats.operators import not_static

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter, and of timm where it traces

DEVICES = Path(__file__).parents[3] / "benchmarks" / "devices.py"


def devices() -> Any:
    """The benchmark of edge networks."""
    spec = importlib.util.spec_from_file_location("devices", DEVICES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(name: str, path: Path, *, built: int, size: int, **changes: Any) -> Path:
    """The ONNX file of a new network that was built for a size and is exported for another, by default settings."""
    default = ExportSettings(model="none", **changes)
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=built).eval()
    info = BackboneInfo(name, built, None, MEAN, STD)
    exportable = prepare(backbone, info, image_size=size, input=default.input, classifier=None)
    write_onnx(exportable, path, batch=default.batch, opset=default.opset, facts={})
    return path


@pytest.mark.parametrize(
    ("name", "built", "size"),
    [
        ("test_resnet", 32, 32),
        ("mobilenetv2_035", 32, 32),
        ("vit_tiny_patch16_224", 64, 32),  # with another position embedding
        ("mobilevit_xxs", 64, 64),
    ],
)
def test_every_shape_in_the_file_of_a_network_is_known_before_it_runs(
    name: str, built: int, size: int, tmp_path: Path
) -> None:
    assert not_static(written(name, tmp_path / "file.onnx", built=built, size=size)) == []


def test_what_follows_from_large_constants_is_computed_beforehand(tmp_path: Path) -> None:
    class Biased(nn.Module):
        """Adds to each of 100 products a bias that is looked up, as LeViT's attention does."""

        places: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(4, 50))
            self.register_buffer("places", torch.randint(0, 50, (100, 100)))

        def forward(self, images: Tensor) -> Tensor:
            rows = images.flatten(1)[:, :100]
            found: Tensor = (rows[:, None, :, None] * rows[:, None, None] + self.table[:, self.places]).sum(-1)
            return found.flatten(1)

    info = BackboneInfo("biased", 8, None, MEAN, STD)
    exportable = Exportable(info, Biased().eval(), "nhwc", None)
    write_onnx(exportable, tmp_path / "file.onnx", batch=1, opset=18, facts={})
    assert not_static(tmp_path / "file.onnx") == []
    assert "GatherND" not in {node.op_type for node in onnx.load(tmp_path / "file.onnx").graph.node}
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    (found,) = OnnxRunner(tmp_path / "file.onnx", threads=1)(images)
    np.testing.assert_allclose(found, exportable.network(torch.from_numpy(images)), rtol=1e-4, atol=1e-4)


def test_the_files_in_half_precision_and_in_8_bits_are_as_static(exported: ExportResult) -> None:
    files = [file for file in exported.files if file.path.suffix == ".onnx"]
    assert len(files) == 3
    assert {file.path.name: not_static(file.path) for file in files} == {file.path.name: [] for file in files}


def test_what_is_not_static_is_found(tmp_path: Path) -> None:
    any_number = not_static(written("test_resnet", tmp_path / "any.onnx", built=32, size=32, batch="dynamic"))
    assert any("has a shape that is open" in fault for fault in any_number)
    nodes = [
        onnx.helper.make_node("Shape", ["images"], ["shape"], name="of"),
        onnx.helper.make_node("Reshape", ["images", "shape"], ["features"], name="by"),
    ]
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in ("images", "features")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", values[:1], values[1:]))
    onnx.save(model, tmp_path / "shaped.onnx")
    assert not_static(tmp_path / "shaped.onnx") == ["Shape of", "input 1 of Reshape by is computed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", devices().NETWORKS)
def test_every_network_of_the_table_of_edge_networks_has_a_static_file(name: str, tmp_path: Path) -> None:
    for size in devices().SIZES:
        try:
            path = written(name, tmp_path / "file.onnx", built=size, size=size)
        except ValueError as error:
            if "image_size" not in str(error):
                raise
        else:
            assert not_static(path) == []
            return
    raise AssertionError(f"{name} takes none of the sizes {devices().SIZES}")
