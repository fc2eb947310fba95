"""How the loops over pixels are compiled."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for one thread, without the GIL, and keep the machine code on disk.

    numba writes it beside this file or, in a read-only installation, below the user's cache folder
    (NUMBA_CACHE_DIR names another one). Where neither can be written it refuses to cache, and every
    process that was not forked after ``warm_up`` compiles anew (about ten seconds).

    Call only compiled functions of the same file: the cache does not notice changes in other files.
    """
    try:
        kernel = njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        kernel = njit(nogil=True, error_model="numpy")(function)
    return cast(Callable[P, R], kernel)
