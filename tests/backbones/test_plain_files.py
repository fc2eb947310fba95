"""torch.save's files as plain data: nothing in them runs."""

import collections
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslight.backbones import load_plain
from sslight.backbones.plain_files import Inert


class Calls:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


SAVED: list[dict[str, Any]] = [{}, {"pickle_protocol": 5}, {"_use_new_zipfile_serialization": False}]


@pytest.mark.parametrize("how", SAVED)
def test_tensors_and_plain_data_come_out_as_they_were(tmp_path: Path, how: dict[str, Any]) -> None:
    data: dict[str, Any] = {
        "tensor": torch.arange(6).view(2, 3).t(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(3)),
        "ordered": collections.OrderedDict(a=torch.zeros(1), b=2),
        "plain": [1, 2.5, "text", None, True, (3, 4), {"x": -(2**70)}],
    }
    torch.save(data, tmp_path / "a.pt", **how)
    found = load_plain(tmp_path / "a.pt")
    for key in ("tensor", "half", "parameter"):
        assert torch.equal(found[key], data[key])
    assert found["ordered"] == data["ordered"]
    assert found["plain"] == data["plain"]


@pytest.mark.parametrize("how", SAVED)
def test_objects_of_any_class_become_their_attributes(tmp_path: Path, how: dict[str, Any]) -> None:
    numbers = collections.defaultdict(list, a=[1])
    torch.save({"path": Path("/x"), "layer": nn.ReLU(), "set": {1}, "dict": numbers}, tmp_path / "a.pt", **how)
    found = load_plain(tmp_path / "a.pt")
    assert found["path"] == {}
    assert isinstance(found["layer"], Inert)
    assert found["layer"]["inplace"] is False
    assert found["dict"] == {"a": [1]}


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("call", [(os.system, "touch {0}"), (eval, "open('{0}', 'w')"), (exec, "open('{0}', 'w')")])
def test_a_call_of_what_runs_code_is_refused_and_named(tmp_path: Path, call: Any, how: dict[str, Any]) -> None:
    trace = tmp_path / "ran"
    torch.save({"state_dict": {}, "x": Calls(call[0], call[1].format(trace))}, tmp_path / "a.pt", **how)
    with pytest.raises(ValueError, match=r"it would call \w+\.(system|eval|exec), which is not run"):
        load_plain(tmp_path / "a.pt")
    assert not trace.exists()


def test_any_other_call_is_passed_over(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"x": Calls(Path.touch, trace), "y": Calls(print, "hello"), "z": 3}, tmp_path / "a.pt")
    assert load_plain(tmp_path / "a.pt")["z"] == 3
    assert not trace.exists()


def test_classes_and_functions_cannot_be_changed_by_a_file(tmp_path: Path) -> None:
    before = torch._utils._rebuild_tensor.__defaults__
    attack = b"\x80\x02ctorch._utils\n_rebuild_tensor\nN}U\x0c__defaults__K\x01s\x86b."
    torch.save(0, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a.pt").read_bytes()
    content = pickle.dumps(0, protocol=2)
    (tmp_path / "a.pt").write_bytes(whole.replace(content, attack, 1))
    assert attack in (tmp_path / "a.pt").read_bytes()
    load_plain(tmp_path / "a.pt")
    assert torch._utils._rebuild_tensor.__defaults__ == before


def test_keys_that_take_for_ever_to_hash_are_passed_over(tmp_path: Path) -> None:
    # {t: 1} for t = (s, s), s = (r, r), ... sixty times
    stream = b"\x80\x02}" + b")" + b"".join(b"2\x86" for _ in range(60)) + b"K\x01s."
    torch.save(0, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole.replace(pickle.dumps(0, protocol=2), stream, 1))
    assert load_plain(tmp_path / "a.pt") == {}


def test_programs_and_archives_are_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for member in ("program/data.pkl", "program/code/net.py", "program/constants.pkl"):
            archive.writestr(member, b"")
    with pytest.raises(ValueError, match="it is a TorchScript program, which is not run"):
        load_plain(tmp_path / "program.pt")
    with tarfile.open(tmp_path / "weights.tar", "w") as tar:
        tar.add(tmp_path / "program.pt", "weights.pt")
    with pytest.raises(ValueError, match="it is a tar archive: unpack it"):
        load_plain(tmp_path / "weights.tar")
