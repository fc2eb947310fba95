"""The comparison: our rows and the published ones, never mixed up."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sslight.evaluate.compare import Comparison, compare_files
from sslight.evaluate.results import read_result, write_ranks, write_scores
from sslight.evaluate.rows import compare_results


def result(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "format": "sslight-evaluation",
        "protocol": "linear (fast)",
        "accuracy": {"top1": 61.25, "top1_interval": [60.1, 62.4], "top5": 84.0, "num_images": 2500},
        "checkpoint": {"path": "runs/a|b/backbone.safetensors", "backbone": "mobilenet_v2"},
        "data": {"train": {"num_images": 25000}, "val": {"num_images": 2500}},
        "details": {},
        "transform": {"image_size": 64},
    }
    return content | changes


def table(*contents: dict[str, Any]) -> str:
    return Comparison(compare_results(contents), [], [], []).to_markdown()


def test_the_table_tells_them_apart() -> None:
    lines = table(result(), result(protocol="linear (fast)")).splitlines()
    assert lines[2] == (
        "| measured here | mobilenet_v2 | runs/a\\|b/backbone.safetensors | linear (fast) "
        "| 25,000 + 2,500 images at 64 px | 61.2 [60.1, 62.4] | 84.0 |"
    )
    assert sum(line.startswith("| measured here") for line in lines) == 2
    assert sum(line.startswith("| *published*") for line in lines) == 6
    assert "by the authors" in lines[-1]
    assert "not measured here" in lines[-1]


def test_results_of_other_images_say_so() -> None:
    sets = [{"train": {"num_images": 9, "sha256": "t"}, "val": {"num_images": 5, "sha256": sha}} for sha in "ab"]
    lines = table(*(result(data=data) for data in sets)).splitlines()
    assert "5 images at 64 px, set A |" in lines[2]
    assert "5 images at 64 px, set B |" in lines[3]
    assert lines[-1].startswith("Sets with different letters hold different images")
    assert "set A" not in table(result(data=sets[0]), result(data=sets[0]))


def test_a_result_is_read_from_its_file_or_folder_and_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(result()), encoding="utf-8")
    assert read_result(file) == read_result(tmp_path) == result()
    for content in ("{}", "[]", "no JSON"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="is not a result of sslight evaluate"):
            read_result(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_result(tmp_path / "nowhere")


def write(folder: Path, ranks: list[int] | None = None, top1: float = 50.0, **changes: Any) -> Path:
    """A result, and the ranks of its images if they are given."""
    folder.mkdir(parents=True)
    accuracy = {"top1": top1, "top1_interval": [40.0, 60.0], "top5": None}
    (folder / "results.json").write_text(json.dumps(result(accuracy=accuracy, **changes)))
    if ranks is not None:
        write_ranks(folder, torch.tensor([[rank, 0] for rank in ranks]), map(str, range(len(ranks))))
    return folder


def test_two_networks_on_the_same_images_are_told_apart_image_by_image(tmp_path: Path) -> None:
    one = write(tmp_path / "one", [0] * 60 + [1] * 40, top1=60.0)
    other = write(tmp_path / "other", [0] * 48 + [1] * 52, top1=48.0)
    near = write(tmp_path / "near", [0] * 56 + [1] * 42 + [0] * 2, top1=58.0)
    (higher,) = compare_files([[one], [other]]).differences
    assert higher["verdict"] == "higher"
    assert (higher["value"], higher["over"]) == (pytest.approx(12.0), "images")
    assert (
        "+12.0 [+4.9, +18.6] points (paired over the same 100 images, not over seeds): **higher**."
        in (higher["sentence"])
    )
    (same,) = compare_files([[one], [near]]).differences
    assert "**not told apart**" in same["sentence"]
    (tmp_path / "near" / "ranks.safetensors").unlink()
    (unknown,) = compare_files([[one], [near]]).differences
    assert (unknown["value"], unknown["verdict"]) == (2.0, None)
    assert "there is no interval" in unknown["sentence"]


def test_two_classifiers_from_the_same_weights_are_called_by_their_runs(tmp_path: Path) -> None:
    folders = []
    for name in ("slow", "fast"):
        folders.append(write(tmp_path / name, [0] * 60 + [1] * 40, top1=60.0))
        content = json.loads((folders[-1] / "results.json").read_text())
        content |= {"protocol": "finetune", "settings": {"output": f"runs/{name}"}}
        (folders[-1] / "results.json").write_text(json.dumps(content))
    found = compare_files([folders[:1], folders[1:]])
    start = content["checkpoint"]["path"]
    between = f"runs/slow (from {start}) − runs/fast (from {start})"
    assert between in found.differences[0]["sentence"]
    assert {row.weights for row in found.rows if row.origin == "measured"} == set(between.split(" − "))
    same = compare_files([folders[:1], folders[:1]]).differences[0]["sentence"]
    assert f"{folders[0]} − {folders[0]}" in same


def write_labels(folder: Path, scores: torch.Tensor, targets: torch.Tensor, figure: float) -> Path:
    """A result of labels that do not exclude each other, with the scores of its images."""
    folder.mkdir(parents=True)
    accuracy = {"map": figure, "map_interval": [figure - 5, figure + 5], "num_images": len(scores)}
    (folder / "results.json").write_text(json.dumps(result(accuracy=accuracy, protocol="finetune (multi-label)")))
    write_scores(folder, scores, targets, map(str, range(len(scores))))
    return folder


def test_two_multi_label_results_are_told_apart_over_the_same_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    targets = torch.randint(0, 2, (200, 4))
    noise = torch.randn(200, 4)
    one = write_labels(tmp_path / "one", 3 * targets + noise, targets, 99.0)
    other = write_labels(tmp_path / "other", targets + noise, targets, 85.0)
    found = compare_files([[one], [other]])
    (higher,) = found.differences
    assert (higher["verdict"], higher["over"]) == ("higher", "images")
    assert 0 < higher["low"] < higher["value"] < higher["high"]
    assert (
        " points of mean average precision (paired over the same 200 images, not over seeds): **higher**."
        in (higher["sentence"])
    )
    (same,) = compare_files([[one], [one]]).differences
    assert same["verdict"] == "not told apart"
    lines = found.to_markdown().splitlines()
    assert lines[0] == "| from | backbone | weights | protocol | data | mAP [95 %] |"
    assert lines[2].endswith("| finetune (multi-label) | 25,000 + 2,500 images at 64 px | 99.0 [94.0, 104.0] |")
    write_scores(other, noise, 1 - targets, map(str, range(200)))  # labels of another table
    (unknown,) = compare_files([[one], [other]]).differences
    assert (unknown["value"], unknown["verdict"]) == (14.0, None)
    assert "there is no interval" in unknown["sentence"]


def test_over_seeds_means_have_students_intervals(tmp_path: Path) -> None:
    sides = [
        [write(tmp_path / f"{name}{seed}", top1=top1) for seed, top1 in enumerate(values)]
        for name, values in {"a": (61.0, 62.0, 63.0), "b": (51.0, 52.5, 53.0)}.items()
    ]
    (found,) = compare_files(sides).differences
    assert found["sentence"].startswith("linear (fast): 62.0 ± 2.5 (3 runs) − 52.2 ± 2.6 (3 runs): +9.8 [")
    assert found["verdict"] == "higher"
    (alone,) = compare_files([sides[0], sides[1][:1]]).differences
    assert alone["verdict"] is None


def test_a_difference_is_of_the_same_protocol_and_images_only(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "other", protocol="knn", details={"k": 20})
    (found,) = compare_files([[one], [other]]).differences
    assert found["sentence"].startswith("No difference:")


def test_a_run_folder_means_all_of_its_results(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = tmp_path / name
        write(run / "evaluation" / "linear-1", [0, 1, 2])
        write(run / "evaluation" / "knn-1", [0, 1, 2], protocol="knn", details={"k": 20})
        (run / "config.yaml").touch()
    found = compare_files([[tmp_path / "a"], [tmp_path / "b"]])
    assert sum(row.origin == "measured" for row in found.rows) == 4
    assert [each["protocol"] for each in found.differences] == ["knn, k = 20", "linear (fast)"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").touch()
    with pytest.raises(ValueError, match="empty is a run without results: measure it with `sslight evaluate knn"):
        compare_files([[tmp_path / "empty"]])


@pytest.mark.parametrize(
    "damage",
    [
        {"accuracy": None},
        {"accuracy": {"top1": "high", "top1_interval": [1, 2], "top5": None}},
        {"accuracy": {"top1": 1.0, "top1_interval": [1], "top5": None}},
        {"accuracy": {"map": 1.0}},
        {"checkpoint": {}},
        {"data": {"train": {}}},
        {"protocol": 3},
        {"protocol": "knn"},
        {"protocol": "detect"},
        {"transform": None},
    ],
)
def test_an_incomplete_result_is_a_sentence(tmp_path: Path, damage: dict[str, Any]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(result() | damage))
    with pytest.raises(ValueError, match=r"is incomplete or damaged .*: evaluate again, or leave it out"):
        compare_files([[tmp_path]])
