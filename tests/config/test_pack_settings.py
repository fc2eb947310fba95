import pytest

from sslight.config import PackSettings, build_pack_settings


def test_words_become_typed_settings_and_the_rest_is_left_to_the_program() -> None:
    assert build_pack_settings([]) == PackSettings()
    settings = build_pack_settings(["short_side=256", "format=tar", "workers=0", "shard_images=null"])
    assert settings == PackSettings(short_side=256, format="tar", workers=0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["workers=-1"],
            "workers=-1: input should be greater than or equal to 0; `sslight data pack --help`",
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
        build_pack_settings(words)
