"""Weights & Biases, MLflow and trackio through their own clients, each in its own thread, so a run never waits.

Each class opens a new run at its service or continues the ``known`` one. ``id`` finds it again; ``place`` is where
people find it. ``log`` takes a line of figures, ``keep`` a page, ``close`` whether the run finished.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import Full, Queue
from typing import Any

from sslight.files import write_whole

Figures = Mapping[str, float | str]

_PROJECT = "sslight"
_MOST_WAITING = 1000  # records; a client that is so far behind is given up
_SECONDS_AT_END = 60.0


class WandB:
    """Weights & Biases; without a login, or with ``WANDB_MODE=offline``, into files for ``wandb sync``."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        import wandb

        self.id = known or uuid.uuid4().hex[:8]
        self._client = wandb
        mode = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(prompt=False, verify=False):
            mode = "offline"  # otherwise it asks for a key on the terminal
        self._run = wandb.init(
            project=None if "WANDB_PROJECT" in os.environ else _PROJECT,
            name=folder.name,
            id=self.id,
            resume="allow",
            dir=folder / "loggers",
            config=dict(settings),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="step")  # a run that goes back repeats steps, and W&B's own never do
        self.place = self._run.dir if self._run.offline else self._run.url or ""

    def log(self, step: int, figures: Figures) -> None:
        self._run.log({"step": step, **figures})

    def keep(self, page: Path) -> None:
        self._run.log({page.stem: self._client.Html(page)})

    def close(self, *, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


class MLflow:
    """MLflow at ``MLFLOW_TRACKING_URI``, or the client's default place."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self._client, self._metric = mlflow.MlflowClient(), Metric
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            experiment = mlflow.set_experiment(name).experiment_id
            self.id = self._client.create_run(experiment, run_name=folder.name).info.run_id
            params = [Param(key, str(value)) for key, value in settings.items()]
            for start in range(0, len(params), 100):  # its limit per call
                self._client.log_batch(self.id, params=params[start : start + 100])
        else:
            self.id = known
            self._client.set_terminated(known, "RUNNING")
        self.place = f"run {self.id} at {mlflow.get_tracking_uri()}"

    def log(self, step: int, figures: Figures) -> None:
        now = int(1000 * time.time())
        numbers = [self._metric(k, v, now, step) for k, v in figures.items() if not isinstance(v, str)]
        self._client.log_batch(self.id, metrics=numbers)
        if "health" in figures:
            self._client.set_tag(self.id, "health", figures["health"])

    def keep(self, page: Path) -> None:
        self._client.log_artifact(self.id, str(page))

    def close(self, *, complete: bool) -> None:
        self._client.set_terminated(self.id, "FINISHED" if complete else "KILLED")


class Trackio:
    """Trackio in its local store, or at ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL``."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        import trackio

        self.id = known or f"{folder.name}-{uuid.uuid4().hex[:8]}"  # runs are found by name
        with _off_standard_output():
            self._run = trackio.init(_PROJECT, name=self.id, resume="allow", config=dict(settings), embed=False)
        self.place = f"run {self.id} in trackio's project {_PROJECT}"

    def log(self, step: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=step)

    def keep(self, page: Path) -> None:
        self._run.log_artifact(page, type="page")

    def close(self, *, complete: bool) -> None:
        with _off_standard_output():
            self._run.finish()


class _OfOneThread:
    """Standard output is for results: what one thread prints goes to standard error."""

    def __init__(self, output: Any) -> None:
        self._output, self._thread = output, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr if threading.get_ident() == self._thread else self._output, name)


@contextmanager
def _off_standard_output() -> Iterator[None]:
    before, sys.stdout = sys.stdout, _OfOneThread(sys.stdout)
    try:
        yield
    finally:
        sys.stdout = before


Client = WandB | MLflow | Trackio
CLIENTS: dict[str, type[Client]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


def check_loggers(names: Sequence[str]) -> None:
    """Raise ValueError if the client of one of ``logger`` is not installed."""
    for name in names:
        if name in CLIENTS and find_spec(name) is None:
            raise ValueError(f"logger={name} needs the package {name}, which is not installed: pip install {name}.")


class Logger:
    """A client and its thread. A failed call or a full queue is reported once, and the rest is dropped."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self._name, self._say, self._on = name, say, True
        self._calls: Queue[Callable[[Client], object] | None] = Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, args=(CLIENTS[name], folder, settings), daemon=True)
        self._thread.start()

    def _work(self, open_: type[Client], folder: Path, settings: Mapping[str, Any]) -> None:
        file = folder / "loggers" / f"{self._name}.id"  # of the run at the service, which a resumed one goes on with
        try:
            file.parent.mkdir(exist_ok=True)
            known = file.read_text(encoding="utf-8").strip() if file.exists() else ""
            client = open_(folder, settings, known or None)
            write_whole(file, f"{client.id}\n")
            self._say(f"{self._name}: {client.place}")
            for call in iter(self._calls.get, None):
                call(client)
        except Exception as error:  # whatever a client raises, the run continues
            self._turn_off(f"failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})")

    def _turn_off(self, why: str) -> None:
        if self._on:
            self._on = False
            self._say(f"warning: logger={self._name} {why} and is off; the run goes on, and metrics.jsonl has it all.")

    def put(self, call: Callable[[Client], object] | None) -> None:
        """Queue a call for the client; None ends its thread."""
        if self._on:
            try:
                self._calls.put_nowait(call)
            except Full:
                self._turn_off(f"is {_MOST_WAITING} records behind")

    def close(self, *, complete: bool) -> None:
        """Wait, for a limited time, until everything is sent."""
        self.put(lambda client: client.close(complete=complete))
        self.put(None)
        self._thread.join(_SECONDS_AT_END if self._on else 0)
        if self._thread.is_alive():
            self._turn_off(f"was not ready {_SECONDS_AT_END:g} s after the run's end")
