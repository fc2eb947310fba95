"""Processes for runs, which end with the command that started them, even where that is killed."""

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process


def processes(number: int) -> ProcessPoolExecutor:
    """A pool of fresh processes: none inherits what another has warmed or left behind."""
    return ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
