"""Processes that are forked beside the threads of libraries."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def forking() -> Iterator[None]:
    """Within it, nothing warns of a fork beside threads.

    Python 3.12 warns of any, and JAX once it has computed something, which LiteRT's converter has it do. What they warn
    of is a lock that another thread holds during the fork: it stays locked in the child. Threads of torch and JAX are
    idle then, and what is forked here decodes and resizes images, with none of their locks.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, RuntimeWarning):  # of Python, of JAX
            warnings.filterwarnings("ignore", message=".*fork", category=category)
        yield
