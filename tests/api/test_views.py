"""``sslight views`` from images to page, as a command and as a function."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sslight
from sslight.cli.main import main
from sslight.config import build_shown_recipes
from sslight.data import SyntheticSource, build_source, decode
from sslight.report.views.page import views_page
from sslight.report.views.table import views_table
from sslight.views import build_multi_crop

FEW: dict[str, Any] = {"images": 2, "draws": 200}


def run(monkeypatch: pytest.MonkeyPatch, *words: str, code: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["sslight", "views", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code


def test_the_command_prints_a_table_and_leaves_a_page(
    image_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = image_folder("photos")
    monkeypatch.chdir(tmp_path)
    words = (str(images), "recipe=dino_cnn_sslight_64", "images=2", "draws=200")
    run(monkeypatch, *words)
    out = capsys.readouterr().out
    for part in ("dino_cnn_baseline_64", "dino_cnn_sslight_64", "1.08\u00a0×"):
        assert part in out
    page = (tmp_path / "views" / "views.html").read_text(encoding="utf-8")
    assert page.count('class="crops small"') == 4
    assert page.count('<figure class="view is-local small"') == 2 * 2 * 2
    assert sorted(path.name for path in (tmp_path / "views").iterdir()) == ["views.html", "views.json"]
    run(monkeypatch, *words, "--json")  # takes the place of the earlier page
    content = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "views" / "views.json").read_text(encoding="utf-8"))
    assert content == written | {"page": "views/views.html"}
    assert content["images"]["number"] == 12


def test_a_folder_with_other_files_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").touch()
    run(monkeypatch, "synthetic:8", f"output={tmp_path}", code=2)
    assert "holds other files (thesis.txt), and none will be overwritten" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_words_in_the_place_of_images_are_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "recipe=dino_cnn_sslight", code=2)
    assert "no IMAGES given: write `sslight views IMAGES" in capsys.readouterr().err
    run(monkeypatch, "nowhere", code=2)
    assert "IMAGES=nowhere does not exist" in capsys.readouterr().err


def test_views_are_those_of_the_first_epoch_and_images_are_chosen_by_seed(tmp_path: Path) -> None:
    shown: list[list[Any]] = []

    def catch(content: Any, images: Any) -> str:
        shown.append(list(images))
        return views_page(content, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sslight.api.views.views_page", catch)
        pages = [
            sslight.show_views("synthetic:50", "quickstart", output=tmp_path, seed=seed, **FEW) for seed in (3, 3, 4)
        ]
    assert pages[0].content == pages[1].content
    names = [[image.name for image in images] for images in shown]
    assert names[0] == names[1] != names[2]
    source = SyntheticSource(50)
    recipes = build_shown_recipes(["quickstart"], {})
    for image in shown[0]:
        index = int(image.name.split("/")[1].split(".")[0])
        for recipe, views in zip(recipes, image.views, strict=True):
            expected = build_multi_crop(recipe.settings.views)(decode(source.read(index)), (3, 0, index))
            for view, pixels in zip(views, expected, strict=True):
                assert np.array_equal(view.pixels, pixels.permute(1, 2, 0).numpy())


def test_unreadable_images_are_replaced_and_hostile_names_stay_text(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    images = image_folder("photos", each=4)
    for number, path in enumerate(sorted(images.iterdir())):
        path.rename(images / f"<img onerror={number}>.jpg")
    (images / "bad<b>.jpg").write_bytes(b"\xff\xd8\xff no picture")
    result = sslight.show_views(images, "dino_cnn_sslight_64", output=tmp_path / "out", images=4, draws=100)
    assert [image["name"] for image in result.content["images"]["unreadable"]] == ["bad<b>.jpg"]
    assert result.content["images"]["measured"] == 4
    page = result.page.read_text(encoding="utf-8")
    assert "<img onerror" not in page
    assert "bad<b>" not in page
    assert "&lt;img onerror=0&gt;.jpg" in page
    assert "bad&lt;b&gt;.jpg" in page


@pytest.mark.parametrize("packed", ["images.h5", "shards"])
def test_packed_sets_are_shown_too(image_folder: Callable[..., Path], tmp_path: Path, packed: str) -> None:
    from sslight.data import pack

    folder = image_folder("photos", classes=("a", "b"), each=3)
    source = build_source([str(folder)], labeled=True)
    pack(source, tmp_path / packed, format="h5" if packed.endswith("h5") else "tar", workers=0)
    result = sslight.show_views(tmp_path / packed, "quickstart", output=tmp_path / "out", **FEW)
    assert result.content["images"]["number"] == 6
    assert result.page.is_file()


def test_compute_is_relative_to_the_first_recipe_and_only_for_the_same_network(tmp_path: Path) -> None:
    recipes = ["dino_cnn_sslight", "dino_cnn_baseline", "dino_vit_sslight"]
    content = sslight.show_views("synthetic:4", recipes, output=tmp_path, images=1, draws=100).content
    relative = [recipe["workload"]["relative_compute"] for recipe in content["recipes"]]
    assert relative[:3] == [1.0, pytest.approx(1 / 1.2274, abs=1e-4), None]
    rows = {row[0]: row[1:] for row in views_table(content["recipes"])}
    assert rows["relative compute per image"][:3] == ("1.00\u00a0×", "0.81\u00a0×", "another network")
    assert rows["their weight"][:3] == ("40\u00a0% · 60\u00a0%", "14\u00a0% · 86\u00a0%", "40\u00a0% · 60\u00a0%")


def test_a_badly_matched_recipe_stands_beside_better_values(tmp_path: Path) -> None:
    overrides = {"views.local_size": 60}
    result = sslight.show_views("synthetic:8", "dino_cnn_sslight_64", overrides, output=tmp_path, images=1, draws=200)
    better = result.content["recipes"][-1]
    assert [recipe["better"] for recipe in result.content["recipes"]] == [False, False, True]
    assert better["changes"] == list(result.content["recipes"][1]["mismatches"][0]["proposal"])
    assert better["mismatches"] == []
    page = result.page.read_text(encoding="utf-8")
    assert page.count('class="sheet"') == 3
    assert page.index("In pictures") < page.index("In numbers")
    small = sslight.show_views("synthetic:8", "dino_cnn_sslight", output=tmp_path, images=1, draws=200)
    assert small.content["recipes"][-1]["changes"][-1] == "views.blur_sigma=[0.1, 0.6]"  # asked for by smaller views
    assert small.content["recipes"][-1]["mismatches"] == []
    matched = sslight.show_views("synthetic:8", "dino_cnn_sslight_64", output=tmp_path, images=1, draws=200)
    assert len(matched.content["recipes"]) == 2


@pytest.mark.parametrize("size", [(8000, 40), (3, 4000), (1, 1)])
def test_images_of_any_shape_are_shown(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "strips").mkdir()
    Image.new("RGB", size, "teal").save(tmp_path / "strips" / "strip.png")
    result = sslight.show_views(tmp_path / "strips", "quickstart", output=tmp_path / "out", images=1, draws=100)
    assert f"{size[0]} × {size[1]} px" in result.page.read_text(encoding="utf-8")


def test_global_views_alone_make_a_page(tmp_path: Path) -> None:
    overrides = {"views.num_local": 0, "views.blur_sigma": [0.1, 0.6]}
    result = sslight.show_views("synthetic:4", "dino_cnn_baseline_64", overrides, output=tmp_path, images=1, draws=100)
    changed = result.content["recipes"][1]
    assert changed["statistics"]["local_share"] is None
    assert changed["mismatches"] == []
    assert "There are no local views." in result.page.read_text(encoding="utf-8")
