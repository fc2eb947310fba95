"""Predictions and features through files: the same from weights and from ONNX, resumed, listed, refused."""

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet
import pytest
import torch

import sslight
from sslight.api import file_pass
from sslight.api import predict as api
from sslight.api.finetune_run import FinetuneResult
from sslight.cli.main import main
from sslight.data import SyntheticSource
from sslight.export import files as export_files
from sslight.export.formats.onnx_file import write_onnx
from sslight.export.task import ExportResult
from sslight.finetuning.classifier_file import classifier_notes, open_classifier, save_classifier
from tests.api.fine_tuned import fine_tuned
from tests.processes import in_two

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript", "ignore::DeprecationWarning:torch")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return fine_tuned(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def exported(result: FinetuneResult) -> ExportResult:
    """The run itself, without a word of its classifier."""
    return sslight.export_backbone(
        result.output,
        {"data.check": str(result.output.parent / "val")},
        format=["safetensors", "onnx"],
        probabilities=True,
        runs=3,
    )


def test_onnx_says_what_the_run_says(result: FinetuneResult, exported: ExportResult) -> None:
    assert exported.path == result.output / "export"
    images = result.output.parent / "val"
    own = sslight.predict(images, result.output)
    assert own.classes == ("lying", "standing")
    assert own.names[0] == "lying/000.png"
    right = [name.partition("/")[0] == label for name, label in zip(own.names, own.labels, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(result.content["accuracy"]["top1"])
    for name in ("classifier.safetensors", "classifier.onnx"):
        other = sslight.predict(images, exported.path / name)
        assert (other.names, other.labels, other.classes) == (own.names, own.labels, own.classes)
        torch.testing.assert_close(other.probabilities, own.probabilities, rtol=1e-3, atol=1e-4)
    features = [sslight.embed(images, file).features for file in (result.output, exported.path / "classifier.onnx")]
    torch.testing.assert_close(features[1], features[0], rtol=1e-3, atol=1e-4)


def test_probabilities_are_an_output_if_asked_for_and_classes_are_named(exported: ExportResult) -> None:
    session = onnxruntime.InferenceSession(exported.path / "classifier.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    logits, shares = session.run(["logits", "probabilities"], {"images": images})
    np.testing.assert_allclose(shares, torch.from_numpy(logits).softmax(1).numpy(), rtol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["lying", "standing"]
    assert json.loads(facts["sslight"])["preprocessing"]["resize_shorter_side"] == 32


def test_a_format_that_disagrees_is_said_and_the_good_files_stay(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = write_onnx

    def other_normalization(exportable: Any, path: Path, **more: Any) -> None:
        info = replace(exportable.info, mean=(0.6, 0.5, 0.4))  # of the training run 0.5, 0.5, 0.5
        honest(replace(exportable, info=info), path, **more)

    monkeypatch.setattr(export_files, "write_onnx", other_normalization)
    overrides = {"data.check": str(result.output.parent / "val"), "output": str(tmp_path / "out"), "runs": 3}
    with pytest.raises(ValueError, match=r"^format=onnx disagrees .*\nclassifier.safetensors agreed and is in"):
        sslight.export_backbone(result.output, overrides, format=["safetensors", "onnx"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"classifier.safetensors", "export.json"}


def test_an_interrupted_command_goes_on_where_it_was(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_pass, "_PART", 8)
    images, computed = str(result.output.parent / "val"), list[int]()
    honest = file_pass.FilePass._part

    def counted(self: Any, indices: Any, progress: Any) -> Any:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(indices))
        return honest(self, indices, progress)

    monkeypatch.setattr(file_pass.FilePass, "_part", counted)
    with pytest.raises(KeyboardInterrupt):
        sslight.predict(images, result.output, output=tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    computed[:] = [0, 0, 0]  # three more parts, and no stop
    sslight.predict(images, result.output, output=tmp_path / "p.csv")
    assert computed[3:] == [8, 8, 8]
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole = sslight.predict(images, result.output)
    assert [(row["name"], row["class"]) for row in rows] == list(zip(whole.names, whole.labels, strict=True))
    assert float(rows[0]["p(lying)"]) == pytest.approx(float(whole.probabilities[0, 0]), rel=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_a_disk_that_is_full_at_the_end_costs_no_computation_and_an_existing_file_stays(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, output = str(result.output.parent / "val"), tmp_path / "p.csv"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(api, "_write_csv", full)
        with pytest.raises(OSError, match="No space left"):
            sslight.predict(images, result.output, output=output)
    monkeypatch.setattr(file_pass.FilePass, "_part", full)  # nothing is left to compute
    sslight.predict(images, result.output, output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    before = output.read_bytes()
    for command in (sslight.predict, sslight.embed):
        with pytest.raises(ValueError, match=r"p\.csv exists: name another file, or remove it"):
            command(images, result.output, output=output)
    assert output.read_bytes() == before


def test_features_are_written_in_three_forms_and_bad_images_listed(
    result: FinetuneResult, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    images = image_folder("images", each=3)
    (images / "001.jpg").write_bytes(b"no picture")
    own = sslight.embed(images, result.output)
    for name in ("f.npz", "f.csv", "f.parquet"):
        sslight.embed(images, result.output, output=tmp_path / name)
    with np.load(tmp_path / "f.npz") as found:
        assert found["names"].tolist() == ["000.jpg", "002.jpg"]
        np.testing.assert_array_equal(found["features"], own.features.numpy())
    columns = pyarrow.parquet.read_table(tmp_path / "f.parquet").to_pydict()
    np.testing.assert_allclose(columns["features"], own.features.numpy())
    with (tmp_path / "f.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 3
    for name in ("f.npz", "f.csv", "f.parquet"):
        assert "001.jpg" in (tmp_path / f"{name}.bad_images.csv").read_text(encoding="utf-8")
    (tmp_path / "f.csv").unlink()
    sslight.embed(images / "000.jpg", result.output, output=tmp_path / "f.csv")
    assert {path.name for path in tmp_path.glob("f.*.bad_images.csv")} == {
        "f.npz.bad_images.csv",
        "f.parquet.bad_images.csv",
    }


def test_neighbors_of_predicted_images_are_those_of_their_features_and_change_no_prediction(
    result: FinetuneResult, exported: ExportResult, tmp_path: Path
) -> None:
    images = result.output.parent / "val"
    plain, own = sslight.predict(images, result.output), sslight.embed(images, result.output, neighbors=2).neighbors
    assert own is not None
    for file in (result.output, exported.path / "classifier.onnx"):
        found = sslight.predict(images, file, neighbors=2, output=tmp_path / f"{file.name}.csv")
        assert found.labels == plain.labels
        assert found.neighbors is not None
        torch.testing.assert_close(found.neighbors.similarities, own.similarities, rtol=1e-4, atol=1e-4)
    with (tmp_path / "run.csv").open(encoding="utf-8") as rows:
        row = next(csv.DictReader(rows))
    assert [*row] == [
        "name", "class", "probability", "p(lying)", "p(standing)",
        "neighbor1", "similarity1", "neighbor2", "similarity2",
    ]  # fmt: skip
    assert row["neighbor2"] == plain.names[int(own.rows[0, 1])]


def test_the_package_that_a_file_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "classifier.tflite").write_bytes(b"a file")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ValueError, match=r"tflite needs the package ai-edge-litert, .* pip install ai-edge-litert"):
        sslight.predict("synthetic:2", tmp_path / "classifier.tflite")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{run}/backbone.safetensors", "synthetic:2", "output={tmp}/p.csv"], "has no classifier: give the run folder"),
        (["{tmp}/none.onnx", "synthetic:2"], "output is not set: give one, such as output=predictions.csv"),
        (["{tmp}/none.onnx", "synthetic:2", "output={tmp}/p.csv"], "there is no file {tmp}/none.onnx"),
        (["{tmp}/text.onnx", "synthetic:2", "output={tmp}/p.csv"], "cannot be opened by onnxruntime"),
        (["{run}", "synthetic:2", "output={tmp}/p.txt"], "must end in .csv; `sslight config predict.output`"),
        (["{run}", "synthetic:2", "output={tmp}/no/p.csv"], "there is no folder {tmp}/no; make it first"),
        (["{run}", "{tmp}/nobody", "output={tmp}/p.csv"], "images: 1 of 1 paths are not files"),
        (["{run}", "output={tmp}/p.csv"], "no IMAGES given: write `sslight predict"),
        (["{run}", "synthetic:2", "output={tmp}/p.csv", "devices=gpu"], "devices=gpu, but this machine has no GPU"),
        (["{tmp}/none.onnx", "synthetic:2", "output={tmp}/p.csv", "devices=gpu"], "none.onnx runs on the CPU"),
        (["{run}", "synthetic:2"], "output"),
    ],
)
def test_a_wrong_input_ends_in_a_sentence(
    words: list[str], sentence: str, result: FinetuneResult, tmp_path: Path
) -> None:
    from sslight.cli.commands.predict import predict

    (tmp_path / "text.onnx").write_text("text", encoding="utf-8")

    def filled(text: str) -> str:
        return text.replace("{run}", str(result.output)).replace("{tmp}", str(tmp_path))

    with pytest.raises(ValueError, match=re.escape(filled(sentence))):
        predict([*map(filled, words)])
    assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


@pytest.mark.parametrize(
    ("images", "given", "sentence"),
    [
        ("synthetic:2", {"network": "Teacher"}, "network=Teacher .*: network is student or teacher"),
        ("synthetic:2", {"output": "/proc/x.csv"}, r"output=/proc/x\.csv cannot be written .*: choose another folder"),
        ("synthetic:2", {"devices": "cuda:9"}, "devices=cuda:9: .* devices is auto, cpu or gpu"),
        ([torch.zeros(3, 32, 32)], {}, "images are paths of files or folders, not pixels"),
        (torch.zeros(1, 3, 32, 32), {}, "images are paths of files or folders, not pixels"),
    ],
)
def test_what_a_function_does_not_know_is_refused(
    images: Any, given: dict[str, Any], sentence: str, result: FinetuneResult
) -> None:
    with pytest.raises(ValueError, match=sentence):
        sslight.embed(images, result.output, **given)


def test_a_file_with_one_network_has_no_teacher(result: FinetuneResult) -> None:
    with pytest.raises(ValueError, match=r"network=teacher: .* holds one network: leave network out"):
        sslight.embed("synthetic:2", result.output, network="teacher")


def test_equal_weights_with_another_preprocessing_are_another_file(result: FinetuneResult, tmp_path: Path) -> None:
    file = open_classifier(result.classifier)
    for name, resize in (("a", None), ("b", 64)):
        notes = {**file.info.notes, **classifier_notes(file.classes, multi_label=False, resize=resize)}
        save_classifier(file.classifier, tmp_path / name, replace(file.info, notes=notes))
    passes = [
        file_pass.FilePass(file_pass.open_file(tmp_path / name), SyntheticSource(2), (1,), 2, 0) for name in ("a", "b")
    ]
    assert passes[0]._folder(tmp_path / "p.csv") != passes[1]._folder(tmp_path / "p.csv")


@pytest.mark.parametrize("notes", [{"classes": "5"}, {"resize": "{"}, {"classes": '["a"]'}])
def test_a_classifier_whose_notes_are_damaged_is_refused(
    notes: dict[str, str], result: FinetuneResult, tmp_path: Path
) -> None:
    file = open_classifier(result.classifier)
    info = replace(file.info, notes={**file.info.notes, **notes})
    save_classifier(file.classifier, tmp_path / "c.safetensors", info)
    with pytest.raises(ValueError, match=r"c\.safetensors is damaged .*: fine-tune or export again"):
        sslight.predict("synthetic:2", tmp_path / "c.safetensors")


@pytest.mark.parametrize("key", ["classes", "sslight"])
def test_an_onnx_file_with_foreign_metadata_is_refused(key: str, exported: ExportResult, tmp_path: Path) -> None:
    model = onnx.load(exported.path / "classifier.onnx")
    next(entry for entry in model.metadata_props if entry.key == key).value = "cat,dog"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="does not say how images become its input"):
        sslight.predict("synthetic:2", tmp_path / "m.onnx")


@pytest.mark.parametrize("resize", [None, 80])
def test_weights_for_another_size_have_the_resizing_of_the_export(
    resize: int | None, result: FinetuneResult, tmp_path: Path
) -> None:
    images = result.output.parent / "val"
    settings = {"data.check": str(images), "image_size": 64, "resize": resize, "output": tmp_path / "out", "runs": 3}
    weights, folder, onnx_file = sslight.export_backbone(
        result.output, settings, format=["safetensors", "timm", "onnx"], **{"tolerance.same_class": 0.5}
    ).files
    assert open_classifier(weights.path).resize == resize  # the run's is 32
    expected = sslight.predict(images, onnx_file.path).probabilities
    for path in (weights.path, folder.path / "model.safetensors"):
        found = sslight.predict(images, path).probabilities
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_results_become_tables_of_pandas(result: FinetuneResult) -> None:
    pytest.importorskip("pandas")
    images = result.output.parent / "val"
    predicted, embedded = sslight.predict(images, result.output), sslight.embed(images, result.output)
    table = predicted.to_pandas()
    assert list(table) == ["label", *predicted.classes]
    assert list(table.index) == list(predicted.names)
    assert table["label"].tolist() == list(predicted.labels)
    assert np.array_equal(table[list(predicted.classes)], predicted.probabilities)
    assert list(replace(predicted, classes=("label", "other")).to_pandas()) == ["label", "label", "other"]
    assert np.array_equal(embedded.to_pandas(), embedded.features)


def predicted_in_parts_of_8(images: str, classifier: str, folder: str) -> None:
    """What each of several processes does."""
    file_pass._PART = 8
    computed: list[int] = []
    honest = file_pass.FilePass._part

    def counted(self: Any, indices: Any, progress: Any) -> Any:
        computed.extend(indices.tolist())
        return honest(self, indices, progress)

    file_pass.FilePass._part = counted  # type: ignore[method-assign]
    for command, name in ((sslight.predict, "p.csv"), (sslight.embed, "f.csv")):
        computed.clear()
        found = command(images, classifier, output=Path(folder, name))
        Path(folder, f"{name}-{os.environ['RANK']}").write_text(json.dumps([len(found.names), computed]))


def test_two_processes_share_the_images_and_the_first_writes_what_one_would(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_pass, "_PART", 8)
    images = str(result.output.parent / "val")
    for command, name in ((sslight.predict, "p.csv"), (sslight.embed, "f.csv")):
        command(images, result.output, output=tmp_path / name)
    (tmp_path / "two").mkdir()
    in_two(predicted_in_parts_of_8, images, str(result.output), str(tmp_path / "two"))
    for name in ("p.csv", "f.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / name).read_text()
        first, second = (json.loads((tmp_path / "two" / f"{name}-{rank}").read_text()) for rank in (0, 1))
        assert first[0] == len(first[1]) + len(second[1]) == len(set(first[1]) | set(second[1]))
        assert second[0] == len(second[1]) > 0
    assert len(list((tmp_path / "two").iterdir())) == 6


def test_the_first_process_computes_what_another_never_did(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(file_pass, "_PART", 8)
    monkeypatch.setattr("sslight.files.PATIENCE", 0.3)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    images = str(result.output.parent / "val")
    monkeypatch.setattr("sslight.files.BETWEEN_SIGNS", 0.0)
    assert sslight.predict(images, result.output, output=tmp_path / "p.csv").names == (
        sslight.predict(images, result.output).names
    )
    said = capsys.readouterr().err
    assert "waiting for part 2 of 5, which another process has not written (2 missing), 0 s of at most 0\n" in said
    assert "s without a new one: this process goes on itself, with part 2 of 5, which " in said


def test_a_file_that_computes_other_classes_than_it_names_is_refused_before_any_image(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = replace(file_pass.open_file(result.output), classes=("one",))
    monkeypatch.setattr(api, "open_file", lambda *_, **__: opened)
    monkeypatch.setattr(file_pass.FilePass, "whole", None)
    with pytest.raises(ValueError, match=r"names 1 classes and computes \d+: export it again\.$"):
        sslight.predict("synthetic:3", result.output, output=tmp_path / "p.csv")


def test_a_process_that_comes_late_has_nothing_to_do_and_select_is_for_one(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = str(result.output.parent / "val"), tmp_path / "p.csv"
    sslight.predict(images, result.output, output=output)
    written = output.read_bytes()
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["sslight", "predict", str(result.output), images, f"output={output}"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert f"process 1 has nothing left to do: {output} is there" in capsys.readouterr().err
    assert output.read_bytes() == written
    with pytest.raises(ValueError, match=r"^select works in one process, and 2 were started: leave out torchrun"):
        sslight.select(images, result.output, num=2, output=tmp_path / "s.csv")


def test_parts_are_of_these_images_only_and_outlast_a_refusal(
    result: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shutil.copytree(result.output.parent / "val", tmp_path / "val")
    output = tmp_path / "out" / "p.csv"
    output.parent.mkdir()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    def refused(*_: Any) -> None:
        raise ValueError("it is refused")

    monkeypatch.setattr("sslight.data.sources.fingerprint.NUM_READ_IMAGES", 1)  # the bytes of the first image alone
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(api, "_write_csv", interrupted)
        sslight.predict(str(images), result.output, output=output)
    assert len(list(output.parent.iterdir())) == 1
    last = sorted(images.rglob("*.png"))[-1]
    last.write_bytes(sorted(images.rglob("*.png"))[0].read_bytes())
    computed: list[int] = []
    honest = file_pass.FilePass._part

    def counted(self: Any, indices: Any, progress: Any) -> Any:
        computed.extend(indices.tolist())
        return honest(self, indices, progress)

    monkeypatch.setattr(file_pass.FilePass, "_part", counted)
    monkeypatch.setattr(api, "_write_csv", refused)
    with pytest.raises(ValueError, match="it is refused"):
        sslight.predict(str(images), result.output, output=output)
    assert len(computed) == len(list(images.rglob("*.png")))
    assert len(list(output.parent.iterdir())) == 2  # of the images as they were, and as they are
    with pytest.raises(ValueError, match="it is refused"):
        sslight.predict(str(images), result.output, output=output)
    assert len(computed) == len(list(images.rglob("*.png")))  # no image again
    monkeypatch.undo()
    sslight.predict(str(images), result.output, output=output)
    assert [path.name for path in output.parent.iterdir()] == ["p.csv"]
