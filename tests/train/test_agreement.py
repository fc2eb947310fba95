"""Processes that see different things say so, once; what one of them meets ends all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from sslight.config import load_recipe
from sslight.data import FolderSource, data_fingerprint
from sslight.train import AnotherProcessFailed, RunFolder, check_agreement, ending_with_others, failing_together
from tests.conftest import TINY
from tests.processes import in_two


def one_of_two(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    (folder / f"rank{rank}.json").write_text(json.dumps(outcomes(rank, folder)), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def outcomes(rank: int, folder: Path) -> dict[str, str]:
    """What each check raises in one of two processes; runs in both."""
    settings = load_recipe("dino_cnn_sslight_64", TINY)
    other = load_recipe("dino_cnn_sslight_64", {**TINY, "lr": 0.3, "workers": 3})
    run = RunFolder(folder / "run")
    run.continues = rank == 1
    images = {name: data_fingerprint(FolderSource(folder / name, labeled=False)) for name in ("a", "b", "c")}
    own = RunFolder(folder / "run")

    def raised(check: Any) -> str:
        try:
            check()
        except (ValueError, AnotherProcessFailed) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    def fails(where: tuple[int, ...]) -> None:
        with failing_together():
            if rank in where:
                raise ValueError(f"images{rank} does not exist.")

    return {
        "same": raised(lambda: check_agreement(settings, images["a"], own)),
        "settings": raised(lambda: check_agreement(other if rank else settings, images["a"], own)),
        "number": raised(lambda: check_agreement(settings, images["b" if rank else "a"], own)),
        "contents": raised(lambda: check_agreement(settings, images["c" if rank else "a"], own)),
        "checkpoint": raised(lambda: check_agreement(settings, images["a"], run)),
        "second fails": raised(lambda: fails((1,))),
        "both fail": raised(lambda: fails((0, 1))),
        "none fails": raised(lambda: fails(())),
    }


def test_two_processes_that_see_different_things_name_the_difference(tmp_path: Path, image_folder: Any) -> None:
    for name, each in (("a", 4), ("b", 3), ("c", 4)):
        image_folder(name, each=each)
    (tmp_path / "c" / "001.jpg").write_bytes(b"another")
    in_two(one_of_two, tmp_path)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    for kind, words in {
        "settings": "differ: lr=0.3 and lr=0.48: start all processes with the same recipe and settings.",
        "number": "differ: data.train has 3 and 4 images: copy the same files everywhere.",
        "contents": "differ: data.train has 4 images with other contents: copy the same files everywhere",
        "checkpoint": "holds a checkpoint on the first machine and none on the second",
    }.items():
        assert first[kind].startswith("ValueError: process 1 on "), kind
        assert words in first[kind]
        assert first[kind] == second[kind]
    assert first["same"] == second["same"] == first["none fails"] == second["none fails"] == "nothing"
    assert first["second fails"] == "AnotherProcessFailed: process 1 failed: images1 does not exist."
    assert second["second fails"].startswith("ValueError: images1 does not exist. (process 1 of 2, on ")
    assert first["both fail"] == "ValueError: images0 does not exist."
    assert second["both fail"].startswith("AnotherProcessFailed: process 0 failed: images0 does not exist.")


def test_a_broken_connection_is_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with pytest.raises(AnotherProcessFailed, match="another process ended"), ending_with_others():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5\nmore")
    with pytest.raises(RuntimeError, match="shapes"), ending_with_others():
        raise RuntimeError("shapes differ")
