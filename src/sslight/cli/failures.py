"""How a command ends that does not succeed: one sentence, an exit code, and a log where nobody foresaw the failure."""

import dis
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

import sslight
from sslight.config import COMMANDS
from sslight.config.explain import fields_of, unknown_key

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # click's, wherever this version of typer keeps click
_OPTIONS = ("--json", "--help", "-h", "--cfg")


def end(error: BaseException) -> NoReturn:
    """End the program as this error asks for: 2 for a wrong input, 1 for a run that stopped, 130 for Ctrl-C.

    With SSLIGHT_TRACEBACK=1 the traceback of any of them is printed, too.
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
    """Whether a ``raise`` of this program made the error, and not a call or an operation that failed inside it."""
    last = error.__traceback__
    if last is None or type(error.__cause__).__name__ == "_RemoteTraceback":  # from a process of a pool
        return True
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    own = str(last.tb_frame.f_globals.get("__name__")).startswith("sslight.")
    return own and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def _logged(error: BaseException) -> str:
    """Write the traceback with what it takes to understand it, and say where."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    about = f"sslight {sslight.__version__}, Python {platform.python_version()}, {platform.platform()}"
    lines = [about, f"arguments: {sys.argv[1:]}", f"folder: {Path.cwd()}", *traceback.format_exception(error)]
    for folder in (Path(cache, "sslight", "errors"), Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
            return f"unforeseen; the log with it is {folder / name}, please report it"
    return "unforeseen; no log could be written, SSLIGHT_TRACEBACK=1 shows where it happened"


def _in_other_words(message: str) -> str:
    """What the parser of options says, or how a setting is typed where one was given as an option."""
    if "\n" in message or not message:  # the help, already printed
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
