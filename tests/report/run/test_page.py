"""The page about runs from hand-made files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sslight.report.run.curves import PROBES, Curves
from sslight.report.run.feature_space import SampledFeatures
from sslight.report.run.files import Run, read_run
from sslight.report.run.page import Pictures, Results, run_page
from sslight.report.run.summary import run_summary
from tests.report.run.run_folders import two_epochs, write_run
from tests.report.test_page import HOSTILE, Balance


def shown(*runs: Run, results: Results | None = None, pictures: Pictures | None = None) -> Balance:
    summaries = [run_summary(run) | {"evaluations": []} for run in runs]
    return Balance(run_page(runs, summaries, results or Results(), pictures or Pictures()))


def cells(page: Balance) -> str:
    return " ".join(page.text.split())


def test_one_run_is_shown_with_its_recipe_and_its_figures(tmp_path: Path) -> None:
    page = shown(read_run(write_run(tmp_path / "first"), name="first"))
    text = cells(page)
    assert page.open == []
    assert "script" not in page.names
    for part in (
        "Running: step 20 of 20, 2 epochs.",
        "18.0 %untrained 5.0 · best 20.0 at step 10",
        "Different from the recipe dino_cnn_sslight_64:",
        "batch_size648",
        "chance: ln K = 6.93",
        "untrained: 5.0",
        "sslight pretrain dino_cnn_sslight_64 epochs=2 'output=a b'",
        "time in training steps30 s",
        "computed onCPU",
    ):
        assert part in text, part
    for absent in ("data.train[]", "Evaluation", "Unreadable images", "Non-finite steps", "GPU hours"):
        assert absent not in text


def test_a_loss_with_koleo_has_no_chance_line_and_its_two_terms_have_theirs(tmp_path: Path) -> None:
    lines = [line | {"global_loss": 6.0, "local_loss": 6.5} for line in two_epochs()[1:]]
    plain = cells(shown(read_run(write_run(tmp_path / "plain", lines=lines), name="plain")))
    lines = [line | {"koleo_loss": 0.5} for line in lines]
    koleo = cells(shown(read_run(write_run(tmp_path / "koleo", lines=lines, dino__koleo_weight=0.1), name="koleo")))
    assert (plain.count("chance: ln K"), koleo.count("chance: ln K")) == (3, 2)
    both = cells(shown(*(read_run(tmp_path / name, name=name) for name in ("plain", "koleo"))))
    assert both.count("chance: ln K") == 3
    assert both.count("loss with KoLeo · 0.1") == 1  # a chart of its own


def test_everything_that_is_fetched_is_inside(tmp_path: Path) -> None:
    page = shown(read_run(write_run(tmp_path / "first"), name="first"))
    links = [value for name, value in page.attributes if name in ("src", "href")]
    ids = {value for name, value in page.attributes if name == "id"}
    assert links
    assert all(link is not None and link.startswith("#") and link[1:] in ids for link in links)


def test_several_runs_share_charts_and_differing_settings_have_a_table(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "a"), name="a")
    second = read_run(write_run(tmp_path / "b", lr=3.5, views__num_local=4), name="b")
    text = cells(shown(first, second))
    differing = text[text.index("Settings", text.index("Throughput and cost") + 20) :].split("All settings")[0]
    assert "lr4.03.5" in differing
    assert "views.num_local24" in differing
    assert "output" not in differing
    assert "seed" not in differing
    same = cells(shown(first, read_run(write_run(tmp_path / "c"), name="c")))
    assert "All settings are the same." in same


def test_equal_untrained_networks_are_one_line_and_other_ones_have_the_color_of_their_run(tmp_path: Path) -> None:
    first, second = (read_run(write_run(tmp_path / name), name=name) for name in "ab")
    assert cells(shown(first, second)).count("untrained: 5.0") == 1
    other = replace(second, series={**second.series, "knn_top1": [(0, 9.0), (10, 20.0)]})
    chart = str(Curves([first, other]).charts({"knn_top1": PROBES["knn_top1"]})[0])
    assert "untrained" not in chart
    assert chart.count('class="mark" style="--colour: var(--series-') == 2


def test_runs_with_other_batch_sizes_have_images_on_the_axis(tmp_path: Path) -> None:
    first, second = (read_run(write_run(tmp_path / str(n), batch_size=n), name=str(n)) for n in (8, 16))
    assert "images seen" in cells(shown(first, second))
    assert "images seen" not in cells(shown(first, read_run(tmp_path / "8", name="again")))


def test_losses_of_different_methods_are_not_in_one_chart(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "a"), name="a")
    second = replace(first, name="b", settings={**first.settings, "method": "swav"})
    text = cells(shown(first, second))
    assert "loss of DINO[nats]" in text
    assert "loss of SwAV[nats]" in text
    assert "dino.teacher_temp0.04–" in text


def test_states_make_a_band_and_a_sentence(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [line | {"health": "healthy"} for line in two_epochs()]
    for line in lines[-8:]:
        line["health"] = "collapsed"
    run = replace(
        read_run(write_run(tmp_path / "a", lines=lines), name="a"), finding="all is alike", advice="a lower lr"
    )
    page = shown(run)
    assert "collapsed all is alike.Try: a lower lr." in cells(page)
    styles = [value for name, value in page.attributes if name == "style" and value and value.startswith("left")]
    assert styles == ["left: 0.00%; width: 65.00%", "left: 65.00%; width: 35.00%"]
    assert "judged from its figures" not in cells(page)
    assert "judged from its figures" in cells(shown(replace(run, judged_here=True)))
    unknown = shown(replace(run, health=[(20, HOSTILE)]))
    assert "script" not in unknown.names
    assert HOSTILE in unknown.text


def test_published_results_are_told_apart_from_measured_ones(tmp_path: Path) -> None:
    row = {
        "backbone": "resnet18",
        "weights": "w",
        "protocol": "linear",
        "data": "d",
        "top1_interval": None,
        "top5": None,
    }
    rows = [
        row | {"origin": "measured", "top1": 41.5, "top1_interval": (40, 43)},
        row | {"origin": "published", "top1": 65.7},
    ]
    run = read_run(write_run(tmp_path / "a"), name="a")
    results = Results(rows=rows, note="Published: by others.")
    summary = run_summary(run) | {"evaluations": []}
    html = run_page([run], [summary], results, Pictures())
    assert "<b>measured here</b>" in html
    assert "<td>41.5 [40.0, 43.0]</td>" in html
    assert "<i>published</i>" in html
    assert '<td><i class="soft">65.7</i></td>' in html
    assert "Published: by others." in html
    measured = Results(rows=rows[:1], note="Published: by others.")
    assert "by others" not in run_page([run], [summary], measured, Pictures())


def test_unreadable_images_and_steps_that_were_not_finite_are_listed(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    rows = "".join(f"{i},image{i}.jpg,truncated,2\n" for i in range(30))
    (path / "bad_images.csv").write_text("index,name,reason,count\n" + rows)
    record = {"step": 7, "what": "the loss became nan", "action": "passed by", "indices": [1, 2, 3]}
    (path / "nonfinite.jsonl").write_text(json.dumps(record) + "\n")
    text = cells(shown(read_run(path, name="a")))
    assert "30 images could not be read and were replaced: 30 × truncated." in text
    assert "image19.jpgtruncated2" in text
    assert "image20.jpg" not in text
    assert "and 10 more in bad_images.csv." in text
    assert "7the loss became nanpassed by3" in text


def test_hostile_names_stay_text_wherever_they_come_from(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", lines=[{"step": 1, "epoch": 0, HOSTILE: 1.0, "loss": 2.0, "health": HOSTILE}])
    (path / "config.yaml").write_text(json.dumps({"method": HOSTILE, "backbone": HOSTILE, HOSTILE: HOSTILE}))
    (path / "environment.json").write_text(
        json.dumps({"command": [HOSTILE], HOSTILE: HOSTILE, "packages": {HOSTILE: 1}})
    )
    (path / "bad_images.csv").write_text(f"index,name,reason,count\n1,{HOSTILE},{HOSTILE},1\n".replace('"', '""'))
    (path / "nonfinite.jsonl").write_text(json.dumps({"step": 1, "what": HOSTILE, "action": HOSTILE, "indices": 3}))
    page = shown(read_run(path, name=HOSTILE), pictures=Pictures(missing=[HOSTILE]))
    assert page.open == []
    assert "script" not in page.names
    assert page.text.count("<script>") > 10


def sampled(
    run: int, labels: list[int] | None = None, classes: list[str] | None = None, size: int = 6
) -> SampledFeatures:
    rng = np.random.default_rng(run)
    features = rng.normal(size=(size, 4)).astype(np.float32)
    picture = np.zeros((8, 8, 3), np.uint8)
    return SampledFeatures(
        run=run,
        weights="backbone.safetensors",
        data="data.val=x",
        names=[f"{HOSTILE}{i}" for i in range(size)],
        classes=classes,
        labels=None if labels is None else np.array(labels),
        features=features / np.linalg.norm(features, axis=1, keepdims=True),
        queries=np.array([0]),
        neighbors=np.tile([1, 2], (size, 1)),
        cosines=np.tile(np.array([0.876, 0.5], np.float32), (size, 1)),
        thumbnails=dict.fromkeys(range(3), picture),
    )


def test_neighbours_of_the_same_class_have_a_ring_and_classes_have_colours(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a"), name="a")
    pictures = Pictures(sampled=[sampled(0, [0, 0, 1, 1, 2, 2], ["cat", HOSTILE, "dog"])])
    page = shown(run, pictures=pictures)
    kinds = [value for name, value in page.attributes if name == "class" and value and value.startswith("thumb")]
    assert kinds == ["thumb small", "thumb same small", "thumb small"]
    text = cells(page)
    assert "0.88" in text
    assert "images of the query's class, such as cat or " in text
    assert "(chance 20.0 %): how many of an image's 5 nearest" in text
    assert "script" not in page.names
    assert {f"--colour: var(--class-{i})" for i in range(3)} <= {value for _, value in page.attributes}


def test_of_many_classes_twelve_are_named(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a"), name="a")
    pictures = Pictures(sampled=[sampled(0, list(range(30)), [f"class{i}" for i in range(30)], size=30)])
    page = shown(run, pictures=pictures)
    assert "18 other classes" in cells(page)
    assert "12 of the classes, evenly spread over their names" in cells(page)


def test_without_labels_there_are_neighbours_and_no_classes(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name), name=name) for name in ("a", "b")]
    text = cells(shown(*runs, pictures=Pictures(sampled=[sampled(0), sampled(1)])))
    assert "weights: backbone.safetensors" in text
    assert "A green frame marks" not in text
    assert "Color: " not in text


def test_losses_of_runs_with_and_without_a_method_have_charts_of_their_own(tmp_path: Path) -> None:
    one = read_run(write_run(tmp_path / "a"), name="a")
    settings = {key: value for key, value in one.settings.items() if key != "method"}
    text = cells(shown(one, replace(one, name="b", settings=settings)))
    assert "loss of DINO" in text
    assert "loss of training with labels" in text
