"""What all settings are made of: a strict section and the ranges that fields share."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MAX_PIXELS = 100_000_000
"""Largest accepted image, in px, unless set."""

LARGEST_MAX_PIXELS = 178_956_970
"""Largest that can be set, in px: beyond it PIL refuses, too."""

READ_TIMEOUT = 300.0
"""Seconds that reading and decoding one image may take, unless set."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
MaxPixels = Annotated[int, Field(ge=1, le=LARGEST_MAX_PIXELS)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Workers = Annotated[int, Field(ge=0, le=1024)]


def _ordered_share(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0.0 < low <= high <= 1.0:
        raise ValueError("must be two shares of the image area, 0 < smallest ≤ largest ≤ 1")
    return value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0.0 < low <= high:
        raise ValueError("must be two numbers, 0 < smallest ≤ largest")
    return value


def as_list(value: object) -> object:
    """A single word as a list of one."""
    return [value] if isinstance(value, str | Path) else value


def as_text(value: object) -> object:
    """A number that YAML made of a word that consists of digits, as that word again."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_resume(value: object) -> object:
    if value not in ("auto", True, False) or not isinstance(value, str | bool):
        raise ValueError("must be true, false or auto")
    return value


AreaShares = Annotated[tuple[float, float], AfterValidator(_ordered_share)]
Interval = Annotated[tuple[float, float], AfterValidator(_ordered)]
Resume = Annotated[bool | Literal["auto"], BeforeValidator(_check_resume)]
Paths = Annotated[list[str], BeforeValidator(as_list)]


class Section(BaseModel):
    """A group of settings; unknown names are errors, values do not change once built."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
