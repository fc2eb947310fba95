"""How the loops over pixels are compiled, and the arrays that they take."""

import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for one thread, without the GIL, and keep the machine code on disk.

    numba writes it beside this file or, in a read-only installation, below the user's cache folder
    (NUMBA_CACHE_DIR names another one). Where neither can be written it refuses to cache, and every
    process that was not forked after ``warm_up`` compiles anew (about ten seconds).

    Machine code of several processors may lie in one folder: numba looks it up by the processor's name and
    features (``magic_tuple`` of its code generator), so that none loads that of another kind.

    Call only compiled functions of the same file: the cache does not notice changes in other files.
    """
    try:
        kernel = njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        kernel = njit(nogil=True, error_model="numpy")(function)
    else:
        for name in ("load_overload", "save_overload"):
            setattr(kernel._cache, name, _unless_the_disk_fails(getattr(kernel._cache, name)))
    return cast(Callable[P, R], kernel)


def _unless_the_disk_fails(access: Callable[..., Any]) -> Callable[..., Any]:
    """Numba lets a full disk, at its first call, end whoever calls the function."""

    def attempt(*args: Any) -> Any:
        try:
            return access(*args)
        except OSError as error:
            warnings.warn(_NOT_KEPT.format(error.strerror or error), stacklevel=1)  # shown once: always this line
            return None  # as if nothing were kept

    return attempt


_NOT_KEPT = (
    "compiled code cannot be cached ({}), so every process compiles again, for about ten seconds: "
    "free some space, or set NUMBA_CACHE_DIR to a folder with space"
)
