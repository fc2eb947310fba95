"""``sslight data``: what is typed, printed, refused."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sslight.cli.commands import data as commands
from sslight.cli.main import main
from sslight.data import build_source


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def command(*words: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["sslight", "data", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return command


def test_a_set_is_packed_by_the_name_of_its_output_and_trained_on(
    run: Callable[..., int],
    image_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = image_folder("images", classes=("ant", "bee"), each=4)
    (images / "ant" / "broken.jpg").write_bytes(b"x")
    for name, kind in (("set.h5", "h5"), ("shards", "tar")):
        assert run("pack", images, f"output={tmp_path / name}", "short_side=32", "workers=0", "--json") == 0
        out, err = capsys.readouterr()
        result = json.loads(out)
        assert (result["format"], result["num_images"], result["num_reencoded"], result["num_bad"]) == (kind, 8, 8, 1)
        assert Path(result["bad_images_file"]).read_text().count("\n") == 2
        assert "9/9 packed" in err
        packed = build_source([str(tmp_path / name)], labeled=True)
        assert packed.classes == ("ant", "bee")
    assert run("pack", images, f"output={tmp_path / 'other'}", "format=h5") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "images 8, 0 of them made smaller classes 2" in said
    assert "left out 1 unreadable, listed in" in said


def test_inspection_is_a_table_or_json(
    run: Callable[..., int], image_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    images = image_folder("images", classes=("ant", "bee"), each=4)
    (images / "bee" / "broken.jpg").write_bytes(b"x")
    assert run("inspect", images) == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("images 9", "classes 2 of 4 to 5 images", "formats JPEG 8", "modes RGB 8", "unreadable 1"):
        assert part in said
    assert "height 48 48 48 48 48" in said
    assert "bee/broken.jpg (not an image in a known format" in said
    assert run("inspect", images, "--json", "sample=3", "workers=1") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_images"], found["num_inspected"], found["classes"]) == (9, 3, {"ant": 4, "bee": 5})


def test_commands_that_are_printed_can_be_copied_if_the_path_has_a_blank(
    run: Callable[..., int],
    image_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(commands, "_SLOW_MEGAPIXELS", 0)
    images = image_folder("my images", each=2)
    assert run("inspect", images) == 0
    copied = [shlex.split(line.partition(":  ")[2]) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert copied == [
        ["sslight", "data", "pack", str(images), "output=SHARDS", "short_side=512"],
        ["sslight", "pretrain", "auto", f"data.train={images}", "output=runs/first"],
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["pack", "{tmp}/nowhere", "output={tmp}/out"],
            "IMAGES={tmp}/nowhere does not exist; give a folder of images, an H5",
        ),
        (["pack", "{tmp}/flat", "output={tmp}/flat"], "flat exists and will not be replaced"),
        (
            ["pack", "{tmp}/flat", "output={tmp}/out", "short_sid=3"],
            "short_sid is not a setting: did you mean short_side?",
        ),
        (["pack", "{tmp}/flat", "output={tmp}/out", "x=3"], "x is not a setting: there are output, format, short_side"),
        (
            ["pack", "{tmp}/flat", "output={tmp}/out", "short_side=7"],
            "short_side=7: input should be greater than or equal to 8",
        ),
        (["pack", "{tmp}/flat", "output={tmp}/out", "format=zip"], "format=zip: input should be 'h5' or 'tar'"),
        (["pack", "{tmp}/flat", "output={tmp}/out", "small"], "'small' is not of the form key=value"),
        (
            ["pack", "{tmp}/flat", "output={tmp}/out.h5", "shard_images=9"],
            "shard_images=9 would have no effect: format=h5",
        ),
        (["pack", "{tmp}/flat", "output={tmp}/no/out"], "out cannot be written: there is no folder"),
        (["inspect", "{tmp}/nowhere"], "IMAGES={tmp}/nowhere does not exist"),
        (["inspect", "{tmp}/cut.tar"], "cut.tar ends without the end mark of a tar file, so a part is missing"),
        (["inspect", "{tmp}/s-{0..3}.tar"], "4 of 4 shards do not exist"),
    ],
)
def test_a_wrong_input_ends_in_one_sentence(
    words: list[str],
    sentence: str,
    run: Callable[..., int],
    image_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image_folder("flat")
    (tmp_path / "cut.tar").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    assert run(*(word.replace("{tmp}", str(tmp_path)) for word in words)) == 2
    out, err = capsys.readouterr()
    assert sentence.replace("{tmp}", str(tmp_path)) in err
    assert err.startswith("sslight: ")
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
