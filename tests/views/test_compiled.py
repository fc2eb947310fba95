import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba.core import registry

from sslight.views.compiled import compiled


def test_where_nothing_can_be_cached_kernels_still_compile() -> None:
    # numba finds no place for the cache of a function that is in no file, as in a wholly read-only system.
    scope: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x\n", scope)
    double: Callable[[int], int] = compiled(scope["double"])
    assert double(21) == 42


def _sum(values: npt.NDArray[np.float64]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def test_a_full_disk_costs_a_warning_and_not_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    kernel = compiled(_sum)
    with pytest.warns(UserWarning, match=r"cannot be cached \(No space left on device\).* set NUMBA_CACHE_DIR"):
        assert kernel(np.ones(3)) == 3


def test_code_of_another_processor_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: numba's FunctionCache._index_key, which holds the codegen's magic_tuple."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    compiled(_sum)(np.ones(3))
    again: Any = compiled(_sum)
    again(np.ones(3))
    assert (again.stats.cache_hits.total(), again.stats.cache_misses.total()) == (1, 0)
    codegen = type(registry.cpu_target.target_context.codegen())
    monkeypatch.setattr(codegen, "_get_host_cpu_name", lambda self: "another")
    on_another: Any = compiled(_sum)
    assert on_another(np.ones(3)) == 3
    assert (on_another.stats.cache_hits.total(), on_another.stats.cache_misses.total()) == (0, 1)
