"""The notebooks of examples/ run from top to bottom in a kernel, on small images, and do not flood."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from tests.pretraining.test_verdicts import METHODS, SHARED

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the Jupyter packages
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

EXAMPLES = Path(__file__).parents[1] / "examples"


def execute(cells: list[str], folder: Path, **given: Any) -> Any:
    """The notebook of these cells after it has run in a kernel of its own."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}, **given)
    client.execute()
    return notebook


def cells_of(name: str) -> list[str]:
    content = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def printed(notebook: Any) -> str:
    return "".join(output["text"] for cell in notebook.cells for output in cell.outputs if "text" in output)


def shown(cell: Any) -> dict[str, Any]:
    (output,) = cell.outputs
    return dict(output["data"])


def test_own_images_become_embeddings(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    photos = image_folder("photos", each=12)
    settings = {key: value for key, value in TINY.items() if key != "data.train"}
    start, *rest = cells_of("own_images")
    assert start.startswith('IMAGES = "photos"')
    notebook = execute([f"IMAGES, OUTPUT, SETTINGS = {str(photos)!r}, 'run', {settings!r}", *rest], tmp_path)
    page = shown(notebook.cells[2])["text/html"]
    assert page.startswith("<iframe srcdoc=")
    assert "Finished: 4 steps" in page
    assert "torch.Size([12, 96])" in shown(notebook.cells[3])["text/plain"]
    assert "image/png" in shown(notebook.cells[4])
    # A line that changes in its place, and the lines of the epochs: nothing else.
    changing = [output for output in notebook.cells[1].outputs if output["output_type"] == "display_data"]
    assert len(changing) <= 1
    assert "\r" not in printed(notebook)
    assert "\x1b" not in printed(notebook)


def test_the_bad_run_is_told_and_ended_by_the_callback(tmp_path: Path) -> None:
    settings = {**SHARED, **METHODS["dino"], "dino.teacher_temp": 0.2}
    start, *rest = cells_of("bad_run")
    assert "'dino.teacher_temp': 0.2" in start.replace('"', "'")
    rest = [cell.replace('"quickstart"', '"dino_cnn_sslight_64"') for cell in rest]
    notebook = execute([f"OUTPUT, SETTINGS = 'run', {settings!r}", *rest], tmp_path)
    assert "a callback asked for the end of the run" in printed(notebook)
    assert "nearly uniform" in shown(notebook.cells[2])["text/html"]
    last = notebook.cells[3].outputs[-1]["text"].splitlines()[-1].split()
    assert last[1] in ("watch", "collapsed")
    assert int(last[0]) < SHARED["steps"]


def test_interrupting_the_kernel_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    settings = {**TINY, "output": "run", "steps": 3000}
    cell = (
        "import os, sslight\nopen('kernel', 'w').write(str(os.getpid()))\n"
        f"sslight.pretrain('dino_cnn_sslight_64', {settings!r})"
    )

    def interrupt() -> None:
        while not (tmp_path / "run" / "checkpoints" / "last.pt").exists():
            time.sleep(0.1)
        os.kill(int((tmp_path / "kernel").read_text()), 2)

    threading.Thread(target=interrupt, daemon=True).start()
    notebook = execute([cell, "print('the kernel lives')"], tmp_path, allow_errors=True)
    error = notebook.cells[0].outputs[-1]
    assert error["ename"] == "TrainingStopped"
    assert "stopped by SIGINT" in error["evalue"]
    assert "the kernel lives" in printed(notebook)
