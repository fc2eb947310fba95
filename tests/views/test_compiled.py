from collections.abc import Callable
from typing import Any

from sslight.views.compiled import compiled


def test_where_nothing_can_be_cached_kernels_still_compile() -> None:
    # numba finds no place for the cache of a function that is in no file, as in a wholly read-only system.
    scope: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x\n", scope)
    double: Callable[[int], int] = compiled(scope["double"])
    assert double(21) == 42
