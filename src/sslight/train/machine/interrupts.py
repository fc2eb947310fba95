"""What can interrupt a run: signals, and failures of other threads."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@contextmanager
def failed_threads(tell: Callable[[OSError], None]) -> Iterator[None]:
    """Report an OSError that ends a thread instead of printing a traceback: TensorBoard writes in its own thread."""
    previous = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError):
            tell(failed.exc_value)
        else:
            previous(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Names of the signals received so far that ask the run to stop; a second SIGINT interrupts at once.

    SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 (SLURM's warning, ``--signal``), and SIGHUP (the terminal is closed) unless it
    is ignored, as under nohup.
    """
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    try:
        before = {n: signal.signal(n, note) for n in STOP_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    except ValueError:  # not the main thread: whoever owns it handles signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
