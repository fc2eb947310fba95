"""The ``sslight`` command."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sslight import __version__
from sslight.cli.bench import bench
from sslight.cli.compare import compare
from sslight.cli.config import config
from sslight.cli.data import data
from sslight.cli.evaluate import evaluate
from sslight.cli.export import export
from sslight.cli.import_ import import_weights
from sslight.cli.pretrain import pretrain
from sslight.cli.recipes import recipes
from sslight.cli.report import report
from sslight.cli.views import views

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Self-supervised pre-training for small vision networks.",
)
app.command()(pretrain)
app.command()(evaluate)
app.command()(compare)
app.command()(views)
app.command()(export)
app.command()(report)
app.command()(recipes)
app.command()(config)
app.command("import")(import_weights)
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a wrong input ends in one sentence and exit code 2, a stopped run in 1."""
    # Idle OpenMP threads spin for milliseconds before they sleep. On cores that are shared with other work a
    # training step then takes several times as long; without any spinning, a step of many small operations on
    # quiet cores takes twice as long. Some microseconds of it keep most of both. Read once, when torch is
    # imported, which no command does before this line.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except ValueError as error:
        _end(str(error), code=2)
    except OSError as error:
        _end(f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}", code=1)
    except KeyboardInterrupt:
        _end("interrupted.", code=130, said_by_all=True)
    except RuntimeError as error:
        from sslight.data import StoreUnavailable, WorkerFailed
        from sslight.train import AnotherProcessFailed, TrainingStopped

        if isinstance(error, AnotherProcessFailed):
            _tell_torchrun(str(error), first=False)
            sys.exit(1)
        if isinstance(error, StoreUnavailable | WorkerFailed):
            _end(str(error), code=1)
        if not isinstance(error, TrainingStopped):
            _tell_torchrun(f"{type(error).__name__}: {error}", first=True)
            raise
        _end(str(error), code=1, said_by_all=True)


def _end(message: str, *, code: int, said_by_all: bool = False) -> None:
    message = message if message.endswith((".", "?")) else message + "."
    if _speaks(said_by_all):
        print(f"sslight: {message}", file=sys.stderr, flush=True)
    _tell_torchrun(message, first=True)
    sys.exit(code)


def _speaks(said_by_all: bool) -> bool:
    """Whether this of all processes prints a message: each sentence once.

    What all say alike is the first one's. Before the processes know each other, those of a machine
    differ in nothing; afterwards only the one that failed gets here.
    """
    environment = os.environ
    rank = environment.get("RANK") or environment.get("SLURM_PROCID") or environment.get("LOCAL_RANK", "0")
    local_rank = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID", "0")
    if said_by_all:
        return rank == "0"
    if "torch" in sys.modules:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            return True
    return local_rank == "0"


def _tell_torchrun(message: str, *, first: bool) -> None:
    """Leave the message where torchrun's report of the failure takes it from (as elastic's ``record`` does).

    Its root cause is the oldest one, in whole seconds: processes that end because of another one come later.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        now = str(int(time.time()) + (0 if first else 2))
        report = {"message": message, "extraInfo": {"py_callstack": message, "timestamp": now}}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": report}), encoding="utf-8")
