"""How commands end that nobody foresaw, and on terminals that have few characters."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import sslight
from sslight.cli import main as commands
from sslight.cli.failures import beside_the_first
from sslight.cli.main import main
from tests.conftest import TINY

Failing = Callable[[Callable[[], object]], int]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Failing:
    """Run a command whose work ends in this error; its exit code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["sslight", "recipes"])

    def fail_with(work: Callable[[], object]) -> int:
        monkeypatch.setattr(commands, "app", lambda **_: work())
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return fail_with


def log(tmp_path: Path) -> str:
    (path,) = (tmp_path / "cache" / "sslight" / "errors").iterdir()
    return path.read_text(encoding="utf-8")


def test_an_internal_value_error_keeps_its_sentence_and_says_where_the_log_is(
    failing: Failing, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert failing(lambda: int("three")) == 2
    err = capfd.readouterr().err
    assert err.startswith(
        "sslight: invalid literal for int() with base 10: 'three' (unexpected; please report it with the log "
    )
    assert err.count("\n") == 1
    assert 'int("three")' in log(tmp_path)
    assert f"sslight {sslight.__version__}, Python 3" in log(tmp_path)


def test_a_sentence_for_users_has_no_log(failing: Failing, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert failing(lambda: sslight.config.load_recipe("dino_cnn_sslight", {"epoch": 3})) == 2
    assert capfd.readouterr().err == "sslight: epoch is not a setting: did you mean epochs?\n"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("cuDNN"), AssertionError(), TypeError("None")])
def test_an_unexpected_error_says_where_the_log_with_it_lies(
    error: Exception, failing: Failing, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert failing(work) == 1
    err = capfd.readouterr().err
    assert (
        f"sslight: unexpected {type(error).__name__}: {error} (unexpected; please report it with the log {tmp_path}"
        in err
    )
    assert "Traceback" in err
    assert "Traceback" in log(tmp_path)


def test_a_traceback_is_shown_where_it_is_asked_for(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSLIGHT_TRACEBACK", "1")
    assert failing(lambda: sslight.config.load_recipe("dino_cnn_sslight", {"epoch": 3})) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.endswith("sslight: epoch is not a setting: did you mean epochs?\n")


def test_where_no_log_can_be_written_the_error_is_still_told(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr("sslight.cli.failures.tempfile", SimpleNamespace(gettempdir=lambda: "/proc/none"))
    assert failing(lambda: int("three")) == 2
    assert "no log could be written; SSLIGHT_TRACEBACK=1 prints the traceback" in capfd.readouterr().err


def test_ctrl_c_is_told(failing: Failing, capfd: pytest.CaptureFixture[str]) -> None:
    assert failing(lambda: 130) == 130
    assert capfd.readouterr().err == "sslight: interrupted.\n"


COMMANDS = [
    "--help",
    "",
    "recipes",
    "recipes dino_cnn_sslight",
    "recipes --json",
    "config",
    "config views.local_size",
    "config export",
    "config evaluate",
    "config from_original={original}",
    "pretrain --help",
    "evaluate --help",
    "views --help",
    "data --help",
    "report --help",
    "bench --help",
    "config café→",
]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_without_these_characters_gets_others(
    command: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / "é.yaml"
    original.write_text("SSL_METHOD: DINO\nOUTPUT_DIR: /tmp/é\n", encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["sslight", *command.format(original=original).split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == (2 if "→" in command else 0)
    out.flush()
    err.flush()
    shown = out.buffer.getvalue() + err.buffer.getvalue()
    assert shown.decode(encoding)


def test_a_finished_run_is_told_on_a_terminal_of_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    words = [
        f"{key}={value}" for key, value in (TINY | {"output": tmp_path / "run", "data.val": "synthetic:20:val"}).items()
    ]
    monkeypatch.setattr(sys, "argv", ["sslight", "pretrain", "dino_cnn_sslight_64", *words])
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert " %  ->  pre-trained " in text


def test_a_name_that_is_not_utf_8_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["sslight", "recipes", "caf\udce9"])
    with pytest.raises(SystemExit) as end:
        main()
    err.flush()
    assert end.value.code == 2
    assert rb"caf\udce9" in err.buffer.getvalue()


def test_windows_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(sslight.__file__).read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ImportError, match="sslight runs on Linux and not on Windows itself: install it in WSL 2"):
        exec(compile(source, "sslight", "exec"), {"__name__": "sslight"})


def test_macos_is_told_to_be_untried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sys, "argv", ["sslight", "recipes", "--json"])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert err == "sslight: untried on macOS; should worker processes hang, set workers=0.\n"


def test_a_process_beside_the_first_tells_its_own_errors_and_none_that_all_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    launched = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    for error, said in ((OSError("no room"), "sslight: process 1: no room\n"), (ValueError("num=0"), "")):
        with pytest.raises(type(error)), beside_the_first(tmp_path / "result.csv"):
            raise error
        assert capfd.readouterr().err == said
    (tmp_path / "result.csv").touch()
    with pytest.raises(SystemExit) as end, beside_the_first(tmp_path / "result.csv"):
        raise FileNotFoundError("a part has gone")
    assert end.value.code == 0
