"""Processes that start at once: forked from one that has imported torch and sslight, which take many seconds."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sslight.cli.main import main

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["sslight.api.pretrain", "sslight.evaluate"])


def in_two(function: Callable[..., object], *args: object) -> None:
    """Call a module's function in two processes as torchrun would start them; an error of theirs is raised here."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="forkserver",
    )
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    try:
        elastic_launch(config, _with_environment)(dict(os.environ), function, *args)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def sslight_process(words: list[str], stderr: Path) -> BaseProcess:
    """Start ``sslight`` with words of a command line; what it says goes to a file."""
    process = FORKSERVER.Process(target=_with_environment, args=(dict(os.environ), _sslight, words, stderr))
    process.start()
    return process


def run_sslight(words: list[str]) -> None:
    """``sslight`` with words of a command line, in this process, which ends where it fails."""
    sys.argv = ["sslight", *words]
    main()


def _sslight(words: list[str], stderr: Path) -> None:
    with stderr.open("w") as file:
        os.dup2(file.fileno(), 2)
    run_sslight(words)


def _with_environment(environment: dict[str, str], function: Callable[..., Any], *args: object) -> None:
    os.environ |= environment  # what a test changed since the first process
    torch.set_num_threads(1)
    function(*args)
