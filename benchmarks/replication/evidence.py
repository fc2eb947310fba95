"""A queue of runs that anyone can leave running: the next run of the plans, continued where it was interrupted.

    make evidence [PLANS="first selection"] [DATA=.data] [THREADS=1]
    python benchmarks/replication/evidence.py [PLAN ...] --data FOLDER [--page-only]

It takes the plans in the order given (default: those of this kind of machine), yields to other work (nice 19), and
after every run rewrites one page, `benchmarks/results/EVIDENCE.md`, and its plot; the results themselves lie in
`benchmarks/replication/results/`, to be committed. Ctrl-C or SIGTERM ends it: the run under way writes a checkpoint
(every ten minutes it does so by itself), and the next start goes on there. Several queues may work side by side on the
same `--runs`, one a core: each takes runs that no other has. A run that failed is passed by until the next start.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from page import differing, missing_measures, read_result, write_page, write_result
from plan import PLANS, Plan, Run, read_plan

from sslight.files import write_whole

HERE = Path(__file__).parent
ON_A_CPU = (
    *("mobilenet_v2", "first", "six-locals", "cifar100", "vit-fifth", "cifar10-small", "weights", "selection"),
    *("methods", "weights-64", "beyond", "beyond-quarter", "beyond-fifth", "beyond-moco", "beyond-views"),
    *("beyond-final", "small", "settings", "cifar10", "vit-64"),
)
ON_A_GPU = ("gpu", *ON_A_CPU)


class Queue:
    """The runs of the plans, and the one under way.

    Args:
        plans: In their order.
        data: Folder of the sets.
        runs: Folder of the run folders.
        results: Folder of the finished results.
        threads: Of a run.
        worker: The program that does a run.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        data: Path,
        runs: Path,
        results: Path,
        threads: int = 1,
        worker: Path = HERE / "worker.py",
    ) -> None:
        self.plans, self.data, self.runs, self.results = plans, data.absolute(), runs.absolute(), results
        self.threads, self.worker = threads, worker
        self.failed: set[str] = set()
        self.child: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.page: Path | None = None

    def work(self, page: Path) -> None:
        """Run after run until none is left or a signal comes; the page whenever one begins or ends."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        self.page = page
        self._rewrite(page)
        missing = {path for plan in self.plans for run in plan.runs if (path := self.missing(run))}
        for path in sorted(missing):
            print(f"{path} is not there: the runs that need it are passed by", flush=True)
        while not self.stopped and self._next():
            self._rewrite(page)
        self._rewrite(page)

    def _next(self) -> bool:
        """Do one run; False if there is none to do."""
        for run in (run for plan in self.plans for run in plan.runs):
            folder = self.runs / run.key
            if run.key in self.failed or self.missing(run):
                continue
            place = self.results / f"{run.key}.json"
            kept = read_result(place)
            if place.exists() and not (kept and missing_measures(run, kept) and (folder / "result.json").exists()):
                continue  # done, or as far as it goes without its folder, or damaged
            with _alone(folder) as lock:
                if lock is not None and not self.measured(run):
                    self._do(run, folder, lock)
                    return True
        return False

    def measured(self, run: Run) -> bool:
        """Whether nothing is left of a run."""
        return not missing_measures(run, read_result(self.runs / run.key / "result.json"))

    def missing(self, run: Run) -> Path | None:
        """A folder or file that a run needs and that is not there."""
        needed = [self.data / run.data / "train", self.data / run.data / "val"]
        if "init_from" in run.settings:
            needed.append(Path(run.settings["init_from"].replace("{data}", str(self.data))))
        return next((path for path in needed if not path.exists()), None)

    def _do(self, run: Run, folder: Path, lock: int) -> None:
        given = folder / "run.json"
        content = asdict(run)
        if given.exists() and differing(began := json.loads(given.read_text(encoding="utf-8"))["run"], content):
            self._say(run, f"error: the plan says another {differing(began, content)} than it began with: rename it")
            self.failed.add(run.key)
            return
        write_whole(given, json.dumps({"run": content, "data": str(self.data), "threads": self.threads}, indent=1))
        self._say(run, "begun")
        if self.page is not None:
            self._rewrite(self.page)
        command = [sys.executable, str(self.worker), str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with (
            (folder / "log.txt").open("ab") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the worker of ours
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes to us alone
                env=environment,
                pass_fds=[lock],  # a worker that outlives a killed queue keeps the folder until it has ended
            ) as self.child,
        ):
            with suppress(
                OSError
            ):  # a session of its own is weighed as a whole, whatever the priority of its processes
                Path(f"/proc/{self.child.pid}/autogroup").write_text("19", encoding="utf-8")
            if self.stopped:  # the signal came while it was started
                self.child.terminate()
            code = self.child.wait()
        if self.measured(run):
            self._say(run, "finished")
        elif self.stopped:
            self._say(run, "interrupted; the next start goes on")
        else:
            self.failed.add(run.key)
            self._say(run, f"failed ({code}): {last_line(folder / 'log.txt')}")

    def _stop(self, number: int, _: object) -> None:
        self.stopped = True
        if self.child is not None:
            self.child.terminate()

    def _say(self, run: Run, what: str) -> None:
        print(f"{run.plan} · {run.key}: {what}", flush=True)

    def _rewrite(self, page: Path) -> None:
        """Write the page if it can be written; a full disk is no reason to leave the other runs undone."""
        try:
            self.write_page(page)
        except OSError as error:
            print(f"the page is not written ({error}); the runs go on, and --page-only writes it later", flush=True)

    def write_page(self, page: Path) -> None:
        """Keep the results of finished runs, and write the page about all."""
        self.results.mkdir(parents=True, exist_ok=True)
        for run in (run for plan in self.plans for run in plan.runs):
            path = self.results / f"{run.key}.json"
            found, kept = read_result(self.runs / run.key / "result.json"), read_result(path)
            if found is None or (path.exists() and kept is None):
                continue
            if kept is not None and (found["measured"].keys() <= kept["measured"].keys()):
                continue
            if kept is not None and found["curve"] != kept["curve"]:
                self._say(run, f"is another training than {path.name}, which stays: remove that to take this one")
                continue
            found["measured"] = {**(kept["measured"] if kept else {}), **found["measured"]}
            write_result(path, found)
        plans = {plan.name: plan for plan in (*map(read_plan, sorted(PLANS.glob("*.yaml"))), *self.plans)}
        order = dict.fromkeys([*(name for name in ON_A_CPU if name in plans), *plans])
        write_page([plans[name] for name in order], page, results=self.results, runs=self.runs)


def last_line(path: Path) -> str:
    """Of a text, or a word for none."""
    return (path.read_text(encoding="utf-8", errors="replace").split("\n")[-2:] or ["nothing"])[0]


@contextmanager
def _alone(folder: Path) -> Iterator[int | None]:
    """The lock of a folder where no other queue works, nor what one started; while any process has it, none will."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock.fileno()


def _check_comparisons(plans: Sequence[Plan]) -> None:
    known = {run.name for plan in (*plans, *map(read_plan, PLANS.glob("*.yaml"))) for run in plan.runs}
    for run in (run for plan in plans for run in plan.runs):
        if unknown := set(run.against) - known:
            raise ValueError(f"{run.plan}: {run.name} is compared with {min(unknown)}, which no plan has: correct it.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Work on the plans that are asked for."""
    on_a_gpu = Path("/dev/nvidia0").exists()  # asking torch would cost this process half a gigabyte for hours
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="*", default=ON_A_GPU if on_a_gpu else ON_A_CPU)
    parser.add_argument("--data", type=Path, default=Path(".data"), help="folder of the sets (default: .data)")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "results" / "EVIDENCE.md")
    parser.add_argument("--threads", type=int, default=1, help="of a run (default: 1)")
    parser.add_argument("--page-only", action="store_true", help="only collect results and write the page")
    given = parser.parse_args(arguments)
    try:
        plans = [read_plan(Path(name) if name.endswith(".yaml") else PLANS / f"{name}.yaml") for name in given.plans]
        _check_comparisons(plans)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    queue = Queue(plans, data=given.data, runs=given.runs, results=given.results, threads=given.threads)
    if given.page_only:
        queue.write_page(given.page)
        return
    queue.work(given.page)
    if queue.failed:
        sys.exit(f"{len(queue.failed)} runs failed; the next start tries them again.")


if __name__ == "__main__":
    main()
