from pathlib import Path

import pytest

from sslight.data.sources.tar.shards import expand, is_pattern, shards_in


def test_a_range_is_counted_with_the_width_of_its_first_number() -> None:
    assert expand("s-{008..011}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]
    assert expand("s-{8..10}.tar") == ["s-8.tar", "s-9.tar", "s-10.tar"]
    assert expand("{0..1}/s-{2..3}.tar") == ["0/s-2.tar", "0/s-3.tar", "1/s-2.tar", "1/s-3.tar"]
    assert is_pattern("s-{0..1}.tar")
    assert not is_pattern("s-{a,b}.tar")


@pytest.mark.parametrize("pattern", ["s-{3..2}.tar", "s-{0..9999999}.tar", "{0..9999}-{0..9999}"])
def test_a_range_that_counts_down_or_too_far_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="must count up; write, for example,"):
        expand(pattern)


def test_a_folder_is_one_of_shards_only_if_it_holds_no_image_and_no_folder(tmp_path: Path) -> None:
    for name in ("b.tar", "a.TAR", "a.index", "index.json", "bad_images.csv", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert shards_in(tmp_path) == [tmp_path / "a.TAR", tmp_path / "b.tar"]
    (tmp_path / "n01").mkdir()
    assert shards_in(tmp_path) == []
    (tmp_path / "n01").rmdir()
    (tmp_path / "x.JPG").write_bytes(b"")
    assert shards_in(tmp_path) == []
