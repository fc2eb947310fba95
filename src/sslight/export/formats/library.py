"""Around the libraries of other programs that write files: silence, and one sentence when they fail."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def library(form: str) -> Iterator[None]:
    """As :func:`quiet`; if the format's library fails, raises ValueError with its own words."""
    try:
        with quiet():
            yield
    except OSError:
        raise
    except Exception as error:  # the libraries have types of their own
        words = " ".join(str(error).strip().partition("\n\n")[0].split())[:300]  # what follows tells of its insides
        raise ValueError(
            f"format={form} cannot be written, its library failed with {type(error).__name__} ({words}): "
            "export another format, and report this network."
        ) from error


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
