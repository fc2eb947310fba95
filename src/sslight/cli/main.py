"""The ``sslight`` command."""

import os
import sys
from typing import Annotated

import typer

from sslight import __version__
from sslight.cli.bench import bench
from sslight.cli.compare import compare
from sslight.cli.config import config
from sslight.cli.data import data
from sslight.cli.evaluate import evaluate
from sslight.cli.export import export
from sslight.cli.import_ import import_checkpoint
from sslight.cli.pretrain import pretrain
from sslight.cli.recipes import recipes
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
app.command()(recipes)
app.command()(config)
app.command("import")(import_checkpoint)
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
        _end("interrupted.", code=130)
    except RuntimeError as error:
        from sslight.data import WorkerFailed
        from sslight.train import TrainingStopped

        if not isinstance(error, TrainingStopped | WorkerFailed):
            raise
        _end(str(error), code=1)


def _end(message: str, *, code: int) -> None:
    print(f"sslight: {message if message.endswith(('.', '?')) else message + '.'}", file=sys.stderr)
    sys.exit(code)
