"""Words of ``sslight report``: folders and settings."""

from pathlib import Path

import pytest

from sslight.config import ReportSettings, read_words, take_settings


def test_words_with_an_equals_sign_are_settings_unless_they_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=3").mkdir()
    runs, typed = read_words("report", ["runs/a", "lr=3", "output=x.html", "images=0"])
    settings = take_settings(typed, ReportSettings)
    assert runs == ["runs/a", "lr=3"]
    assert (settings.output, settings.images, settings.queries, settings.seed) == (Path("x.html"), 0, 6, 0)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("imagse=3", r"imagse is not a setting: did you mean images\?"),
        ("zzz=3", "there are output, images, queries, seed"),
        (
            "images=-1",
            "images=-1: input should be greater than or equal to 0; `sslight config report.images` explains it",
        ),
        ("images=many", "images=many"),
    ],
)
def test_wrong_words_end_in_a_sentence(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        take_settings(read_words("report", ["run", word])[1], ReportSettings)
