"""Makes the pictures of the pages, in light and dark, from two runs on drawn images and a photograph.

``python docs/pictures.py RUNS``: runs that are missing in the folder RUNS are made first (minutes). It needs
headless Chromium and scikit-image, for its photograph of Chelsea the cat (Stefan van der Walt, CC0).
"""

import re
import subprocess
import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops

import sslight
from sslight.api.views import shown_image
from sslight.config import load_recipe
from sslight.report.page import element
from sslight.report.views.sheet import image_sheet, views_legend
from sslight.views import build_multi_crop

_FOLDER = Path(__file__).with_suffix("")
_RUNS = {"good": {}, "bad": {"dino.center_momentum": 1.0, "steps": 300, "data.val": []}}
_DARK = "@media screen and (prefers-color-scheme: dark)"
_RECIPES = ("dino_cnn_baseline", "dino_cnn_sslight")


def main(runs: Path) -> None:
    """Make the runs that are not there, and all pictures."""
    for name, settings in _RUNS.items():
        if not (runs / name / "backbone.safetensors").exists():
            sslight.pretrain("quickstart", settings, output=runs / name)
    with tempfile.TemporaryDirectory() as folder:
        one = sslight.report_runs(runs / "good", output=Path(folder, "one.html")).page.read_text(encoding="utf-8")
        both = sslight.report_runs([runs / "good", runs / "bad"], output=Path(folder, "both.html"), images=0)
        health = _section(both.page.read_text(encoding="utf-8"), "health")
    _draw("views", _views(), width=1200)
    _draw("health", health + "<style>.charts > div:nth-child(n+3) {display: none}</style>", width=1100)
    _draw("neighbors", _section(one, "neighbors") + "<style>.near:nth-of-type(n+4) {display: none}</style>", width=1100)
    _draw("report", one[one.index("<main>") :], width=1100, height=900)


def _views() -> str:
    """Chelsea with the crops and views of the baseline and of SSLight."""
    package = find_spec("skimage")
    assert package is not None, "pip install scikit-image"
    photograph = Image.open(Path(str(package.origin)).parent / "data/chelsea.png").convert("RGB")
    image = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)
    crops = [(build_multi_crop(load_recipe(recipe).views), 0) for recipe in _RECIPES]
    sheet = image_sheet(shown_image("chelsea.png", 0, image, crops), [element("code", recipe) for recipe in _RECIPES])
    return f"<main>{views_legend()}{sheet}</main>"


def _section(page: str, key: str) -> str:
    """The part of a report under the heading with this id."""
    found = re.search(rf'<section><h2 id="{key}">.*?</section>', page, flags=re.DOTALL)
    assert found is not None
    return f"<main>{found[0]}</main>"


def _draw(name: str, body: str, *, width: int, height: int = 3000) -> None:
    """Write ``name-light.webp`` and ``name-dark.webp``: the markup in the style of the reports, cut to its content."""
    style = files("sslight.report").joinpath("style.css").read_text(encoding="utf-8")
    for scheme, media in {"light": "@media not all", "dark": "@media all"}.items():
        styled = style.replace(_DARK, media).replace("color-scheme: light dark", f"color-scheme: {scheme}")
        html = f"<!doctype html><meta charset=utf-8><style>{styled} h2 {{margin-top: .6rem}}</style>{body}"
        with tempfile.TemporaryDirectory() as folder:
            page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
            page.write_text(html, encoding="utf-8")
            options = [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={folder}/user",
            ]
            size = [f"--window-size={width},{height}", "--force-device-scale-factor=1.5", f"--screenshot={shot}"]
            subprocess.run(["chromium", *options, *size, page.as_uri()], check=True, capture_output=True, timeout=120)
            image = Image.open(shot).convert("RGB")
        content = ImageChops.difference(image, Image.new("RGB", image.size, image.getpixel((0, 0)))).getbbox()
        assert content is not None
        bottom = min(content[3] + 20, image.height)
        image.crop((0, 0, image.width, bottom)).save(_FOLDER / f"{name}-{scheme}.webp", quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
