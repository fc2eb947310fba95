"""The ``sslight`` command."""

import os
import sys
from typing import Annotated

import typer

from sslight import __version__
from sslight.cli.commands.bench import bench
from sslight.cli.commands.compare import compare
from sslight.cli.commands.config import config
from sslight.cli.commands.data import data
from sslight.cli.commands.evaluate import evaluate
from sslight.cli.commands.export import export
from sslight.cli.commands.finetune import finetune
from sslight.cli.commands.import_ import import_weights
from sslight.cli.commands.plan import plan
from sslight.cli.commands.predict import embed, predict
from sslight.cli.commands.pretrain import pretrain
from sslight.cli.commands.recipes import recipes
from sslight.cli.commands.report import report
from sslight.cli.commands.select import select
from sslight.cli.commands.views import views
from sslight.cli.completion import whole_words
from sslight.cli.failures import end
from sslight.cli.grammar import OneCommand, Several
from sslight.cli.next import say_what_next
from sslight.cli.terminal import write_what_the_terminal_can

_INTERRUPTED = 130

app = typer.Typer(
    cls=Several,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Self-supervised pre-training for small vision networks.",
)
for command in (
    *(pretrain, plan, finetune, evaluate, compare, predict, embed, views, export, report, import_weights),
    *(select, recipes, config),
):
    app.command("import" if command is import_weights else None, cls=OneCommand)(command)
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        say_what_next()


def main() -> None:
    """Run the command line. Wrong input ends with one sentence and exit code 2, a stopped run with 1."""
    # Idle OpenMP threads spin for milliseconds before they sleep. On cores that are shared with other work a
    # training step then takes several times as long; without any spinning, a step of many small operations on
    # quiet cores takes twice as long. Some microseconds of it keep most of both. Read once, when torch is
    # imported, which no command does before this line.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    write_what_the_terminal_can()
    if sys.platform == "darwin":
        print("sslight: untried on macOS; should worker processes hang, set workers=0.", file=sys.stderr)
    try:
        with whole_words():
            code = app(prog_name="sslight", standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        end(error)
    sys.exit(code or 0)
