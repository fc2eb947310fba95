from pathlib import Path

import pytest

from sslight.config import PackSettings, read_words, take_settings


def settings_of(*words: str) -> PackSettings:
    return take_settings(read_words("data pack", ["images", "output=shards", *words])[1], PackSettings)


def test_words_become_typed_settings_and_the_rest_is_left_to_the_program() -> None:
    output = Path("shards")
    assert settings_of() == PackSettings(output=output)
    settings = settings_of("short_side=256", "format=tar", "workers=0", "shard_images=null")
    assert settings == PackSettings(output=output, short_side=256, format="tar", workers=0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["workers=-1"],
            "workers=-1: input should be greater than or equal to 0; `sslight config pack.workers` explains",
        ),
        (["shard_images=0"], "shard_images=0: input should be greater than or equal to 1"),
        (["short_side=small"], "short_side=small: input should be a valid integer"),
        (["formt=h5"], "formt is not a setting: did you mean format"),
        (["workers=1", "workers=2"], "workers is given twice"),
        (["workers="], "workers= has no value"),
    ],
)
def test_wrong_words_are_explained(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        settings_of(*words)
