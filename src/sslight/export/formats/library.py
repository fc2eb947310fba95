"""Around the libraries of other programs that write and run files: silence, and one sentence when they fail."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


class _Failed(ValueError):
    """What is raised here, and not said twice where one block is inside another."""


@contextmanager
def library(form: str) -> Iterator[None]:
    """As :func:`quiet`; if the format's library fails, raises ValueError with its own words."""
    try:
        with quiet():
            yield
    except (OSError, _Failed):
        raise
    except Exception as error:  # the libraries have types of their own
        raise _failed(form, "written, its library", error) from error


@contextmanager
def runtime(form: str) -> Iterator[None]:
    """Where a file that was written is opened and run; if that fails, raises ValueError with the runtime's words."""
    try:
        yield
    except Exception as error:  # ValueError too, which is LiteRT's for a damaged file
        raise _failed(form, "run, its runtime", error) from error


def _failed(form: str, what: str, error: Exception) -> _Failed:
    words = " ".join(str(error).strip().partition("\n\n")[0].split())[:300]  # what follows tells of its insides
    return _Failed(
        f"format={form} cannot be {what} failed with {type(error).__name__} ({words}): "
        "export another format, and report this network."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the progress, advice and deprecations of a library, which say nothing about the result."""
    before, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
