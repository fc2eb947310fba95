"""Loggers with their real clients where they are installed, and what no client can do to a run."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sslight.api.pretrain import run_pretraining
from sslight.config import PretrainSettings, load_recipe
from sslight.train import Callback
from sslight.train.record import loggers
from sslight.train.record.loggers import Logger
from tests.conftest import TINY
from tests.processes import in_two

Settings = Callable[..., PretrainSettings]


class Silent:
    """A client that keeps what it gets."""

    place = "nowhere"

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        self.id = known or "new"
        self.logged: list[int] = []

    def log(self, step: int, figures: Mapping[str, float | str]) -> None:
        self.logged.append(step)

    def close(self, *, complete: bool) -> None:
        pass

    def keep(self, page: Path) -> None:
        (page.parent / "kept").touch()


class Broken(Silent):
    def log(self, step: int, figures: Mapping[str, float | str]) -> None:
        raise ConnectionError("the server\nis away")


class Stuck(Silent):
    def log(self, step: int, figures: Mapping[str, float | str]) -> None:
        threading.Event().wait()


def put(logger: Logger, steps: range) -> None:
    for step in steps:
        logger.put(lambda client, step=step: client.log(step, {}))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("client", "steps", "sentence"),
    [
        (Broken, 3, "failed (ConnectionError: the server is away)"),
        (Stuck, 3, "was not ready 0.2 s after the run's end"),
        (Stuck, 1500, "is 1000 records behind"),
    ],
)
def test_a_client_that_fails_or_hangs_is_told_once_and_holds_nothing_up(
    client: type[Silent], steps: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loggers.CLIENTS, "wandb", client)
    monkeypatch.setattr(loggers, "_SECONDS_AT_END", 0.2)
    said: list[str] = []
    logger = Logger("wandb", tmp_path, {}, said.append)
    put(logger, range(steps))
    begin = time.monotonic()
    logger.close(complete=True)
    assert time.monotonic() - begin < 5
    told = [line for line in said if "warning" in line]
    assert told == [f"warning: logger=wandb {sentence} and is off; the run goes on, and metrics.jsonl has it all."]


def test_a_run_ends_well_beside_a_client_that_cannot_even_open(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: Path, settings: Mapping[str, Any], known: str | None) -> Silent:
        raise SystemError("no")

    monkeypatch.setitem(loggers.CLIENTS, "wandb", refuse)
    monkeypatch.setattr(loggers, "find_spec", lambda name: object())
    result = run_pretraining(tiny(logger="wandb"))
    assert result.training.steps == 4
    errors = capfd.readouterr().err
    assert errors.count("logger=wandb failed (SystemError: no) and is off") == 1
    assert (result.output / "report.html").is_file()


def test_a_missing_client_is_told_before_anything_is_written(tiny: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    settings = tiny(logger=["tensorboard", "wandb"])
    with pytest.raises(ValueError, match=r"logger=wandb needs the package wandb, .* pip install wandb\.$"):
        run_pretraining(settings)
    assert settings.output is not None
    assert not settings.output.exists()


@pytest.mark.parametrize("value", [["none", "wandb"], ["wandb", "wandb"], []])
def test_none_stands_alone_and_each_logger_once(tiny: Settings, value: list[str]) -> None:
    with pytest.raises(ValueError, match=r"logger=.*must be none, or one or more of"):
        tiny(logger=value)


def test_one_logger_needs_no_brackets(tiny: Settings) -> None:
    assert tiny(logger="mlflow").logger == ["mlflow"]
    assert load_recipe("quickstart").logger == ["tensorboard"]


def interrupted_and_resumed(tiny: Settings, logger: str) -> Path:
    """A run that a callback ends early, and its resumption; their folder."""
    changes = {"logger": logger, "data__val": ["synthetic:20:val"]}
    first = run_pretraining(tiny(**changes), [Callback(on_log=lambda step, figures: step == 1)])
    assert first.training.steps == 2
    assert run_pretraining(tiny(resume=True, **changes)).training.steps == 4
    return first.output


def content_of(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def test_wandb_offline_has_two_parts_of_one_run_with_figures_and_report(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = interrupted_and_resumed(tiny, "wandb")
    id = (run / "loggers" / "wandb.id").read_text().strip()
    parts = sorted((run / "loggers" / "wandb").glob("offline-run-*"))
    assert [part.name.endswith(f"-{id}") for part in parts] == [True, True]
    for part in parts:
        words = {b"teacher_entropy", b"knn_top1", b"health", b"dino.head_output_dim"}
        deadline = (
            time.monotonic() + 60
        )  # W&B's own process writes a little later; an interpreter that ends waits for it
        while left := {word for word in words if word not in content_of(part / f"run-{id}.wandb")}:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        assert list((part / "files" / "media" / "html").glob("report_*.html"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """MLflow's own server on the loopback interface, with SQLite behind it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", probe.getsockname()[1])
    words = ["--host", address[0], "--port", str(address[1]), "--workers", "1"]
    words += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *words], stdout=log, stderr=log)
        try:
            while True:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                try:
                    socket.create_connection(address, timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://{address[0]}:{address[1]}"
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.mark.filterwarnings("ignore")  # those of MLflow and what it imports
@pytest.mark.parametrize("store", ["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def test_mlflow_has_one_run_with_settings_figures_verdict_and_report(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, store: str, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where artifacts go without a server
    address = f"sqlite:///{tmp_path}/mlflow.db" if store == "sqlite" else request.getfixturevalue("server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    output = interrupted_and_resumed(tiny, "mlflow")
    client = mlflow.MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("sslight").experiment_id])
    assert run.info.run_id == (output / "loggers" / "mlflow.id").read_text().strip()
    assert run.info.status == "FINISHED"
    assert run.data.params["dino.head_output_dim"] == "32"
    assert run.data.tags["health"] == "early"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4]
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["report.html"]


@pytest.mark.filterwarnings("ignore")  # those of trackio and what it imports
def test_trackio_has_one_run_with_figures_verdict_and_report(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    trackio = pytest.importorskip("trackio")
    output = interrupted_and_resumed(tiny, "trackio")
    (run,) = trackio.Api().runs("sslight")
    assert run.name == (output / "loggers" / "trackio.id").read_text().strip()
    logs = trackio.sqlite_storage.SQLiteStorage.get_logs("sslight", run.name)
    assert [line["step"] for line in logs if "loss" in line] == [1, 2, 3, 4]
    assert {line["health"] for line in logs} == {"early"}
    assert list((tmp_path / "trackio" / "artifacts").rglob("blobs/*/*/*"))


def test_a_thread_off_standard_output_leaves_it_to_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    begun, end = threading.Event(), threading.Event()

    def talk() -> None:
        with loggers._off_standard_output():
            print("a client")
            begun.set()
            end.wait()

    thread = threading.Thread(target=talk)
    thread.start()
    begun.wait()
    print("a result")
    end.set()
    thread.join()
    assert capsys.readouterr() == ("a result\n", "a client\n")


def test_an_empty_name_of_a_run_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loggers").mkdir()
    (tmp_path / "loggers" / "mlflow.id").touch()  # as a full disk leaves it
    monkeypatch.setitem(loggers.CLIENTS, "mlflow", Silent)
    Logger("mlflow", tmp_path, {}, lambda words: None).close(complete=True)
    assert (tmp_path / "loggers" / "mlflow.id").read_text(encoding="utf-8") == "new\n"


def train_beside_a_logger(output: Path) -> None:
    loggers.CLIENTS["mlflow"] = Silent  # type: ignore[assignment]
    vars(loggers)["find_spec"] = str  # anything that is not None
    changes = {"output": output, "logger": "mlflow", "data.val": ["synthetic:20:val"]}
    run_pretraining(load_recipe("dino_cnn_sslight_64", TINY | changes))


def test_the_first_of_two_processes_gives_a_report_without_the_other(tmp_path: Path) -> None:
    in_two(train_beside_a_logger, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "kept").exists()
