"""How a failed command ends: one sentence, an exit code, and a log for unexpected errors."""

import dis
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import typer

import sslight
from sslight.config import COMMANDS
from sslight.config.explain import fields_of, unknown_key

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # click's, wherever this version of typer has it
_OPTIONS = ("--json", "--help", "-h", "--cfg")


@contextmanager
def beside_the_first(output: Path) -> Iterator[None]:
    """Around the work of processes that share images: the first one may have written ``output`` without this one.

    Then it is no error that the file is there or that parts have gone. Other errors in the middle of the work are told
    by each process, with its number.
    """
    from sslight.train.machine.devices import own_share

    share = own_share()
    try:
        yield
    except Exception as error:
        if share.number and isinstance(error, OSError | ValueError) and output.exists():
            print(f"process {share.number} has nothing left to do: {output} is there", file=sys.stderr)
            sys.exit(0)
        if share.local_number and not isinstance(error, ValueError):  # those are the same in all
            print(f"sslight: process {share.number}: {error}", file=sys.stderr, flush=True)
        raise


def end(error: BaseException) -> NoReturn:
    """End the program: exit code 2 for wrong input, 1 for a run that stopped, 130 for Ctrl-C.

    SSLIGHT_TRACEBACK=1 also prints the traceback.
    """
    if os.environ.get("SSLIGHT_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    match error:
        case ValueError():
            _exit(f"{error}" if _is_raised_for_users(error) else f"{error} ({_logged(error)})", code=2)
        case OSError():
            _exit(f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}", code=1)
        case KeyboardInterrupt():
            _exit("interrupted.", code=130, said_by_all=True)
        case _ if isinstance(error, USAGE_ERROR):
            _exit(_in_other_words(error.format_message()), code=2)  # type: ignore[attr-defined]
        case RuntimeError():
            from sslight.data import StoreUnavailable, WorkerFailed
            from sslight.train import AnotherProcessFailed, TrainingStopped

            if isinstance(error, AnotherProcessFailed):
                _tell_torchrun(str(error), first=False)
                sys.exit(1)
            if isinstance(error, StoreUnavailable | WorkerFailed | TrainingStopped):
                _exit(str(error), code=1, said_by_all=type(error) is TrainingStopped)
    traceback.print_exception(error)
    _exit(f"unexpected {type(error).__name__}: {error} ({_logged(error)})", code=1)


def _is_raised_for_users(error: ValueError) -> bool:
    """Whether a ``raise`` of this program made the error, not a failed call or operation inside it."""
    last = error.__traceback__
    if last is None or type(error.__cause__).__name__ == "_RemoteTraceback":  # from a process of a pool
        return True
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    own = str(last.tb_frame.f_globals.get("__name__")).startswith("sslight.")
    return own and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def _logged(error: BaseException) -> str:
    """Write a log with the traceback and the context, and say where it is."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    about = f"sslight {sslight.__version__}, Python {platform.python_version()}, {platform.platform()}"
    lines = [about, f"arguments: {sys.argv[1:]}", f"folder: {Path.cwd()}", *traceback.format_exception(error)]
    for folder in (Path(cache, "sslight", "errors"), Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
            return f"unexpected; please report it with the log {folder / name}"
    return "unexpected; no log could be written; SSLIGHT_TRACEBACK=1 prints the traceback"


def _in_other_words(message: str) -> str:
    """The option parser's message, or how to type a setting that was given as an option."""
    if "\n" in message or not message:  # the help, which is already printed
        sys.exit(2)
    words = sys.argv[1:]
    name = next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), "")
    kinds = COMMANDS[name].kinds if name and "o such option" in message else ()
    for number, word in enumerate(words if kinds else ()):
        if word.startswith("-") and word not in _OPTIONS:
            typed, _, value = word.partition("=")
            key = typed.lstrip("-").replace("-", "_")
            if key not in fields_of(*kinds):
                return f"{typed} is no option, and {unknown_key(key, *kinds)}"
            value = value or (words[number + 1] if number + 1 < len(words) else "VALUE")
            return f"{typed} is no option: settings are typed without dashes, {key}={value}."
    command = " ".join(["sslight", *(words[:1] if any(each.split()[0] in words[:1] for each in COMMANDS) else [])])
    return message if message.endswith("?") else f"{message.rstrip('.')}; `{command} --help` shows what to type."


def _exit(message: str, *, code: int, said_by_all: bool = False) -> NoReturn:
    message = message if message.endswith((".", "?")) else message + "."
    if _speaks(said_by_all):
        print(f"sslight: {message}", file=sys.stderr, flush=True)
    _tell_torchrun(message, first=True)
    sys.exit(code)


def _speaks(said_by_all: bool) -> bool:
    """Whether this process prints a message, so that each sentence appears once.

    A message that all processes have is printed by the first. Before the processes know each other, one per machine
    prints; afterwards only the one that failed gets here.
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
    """Write the message where torchrun's failure report reads it (as elastic's ``record`` does).

    Its root cause is the oldest report, in whole seconds, so processes that end because of another one get a later
    time.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        now = str(int(time.time()) + (0 if first else 2))
        report = {"message": message, "extraInfo": {"py_callstack": message, "timestamp": now}}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": report}), encoding="utf-8")
