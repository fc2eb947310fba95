"""Recipes, overrides and the sentences that wrong settings end in."""

import json
from pathlib import Path
from typing import Any

import pytest

from sslight.config import (
    explain,
    load_recipe,
    parse_assignments,
    read_recipe,
    recipe_names,
    setting_keys,
    to_yaml,
)

PUBLISHED = [
    f"{family}_{views}"
    for family in ("dino_cnn", "dino_vit", "swav_cnn", "moco_cnn")
    for views in ("baseline", "sslight")
]
OWN_GROUP = {"dino": "DINO", "swav": "SWAV", "moco": "MOCO"}  # the original's names


def settings_of(recipe: str, *assignments: str):  # type: ignore[no-untyped-def]
    return load_recipe(recipe, parse_assignments(assignments))


@pytest.mark.parametrize("key", setting_keys())
def test_every_setting_says_what_it_means_its_unit_and_what_to_try(key: str) -> None:
    setting = explain(key)
    assert setting.meaning
    assert setting.unit
    assert setting.advice


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_title_source_command_cost_and_expectation(name: str) -> None:
    title, *rest = read_recipe(name).header
    assert title
    assert [line.split(":")[0] for line in rest[:4]] == ["source", "command", "cost", "expected"]
    assert f"sslight pretrain {name} " in rest[1]


@pytest.mark.parametrize("family", ["dino_cnn", "dino_vit", "swav_cnn", "moco_cnn"])
def test_sslight_differs_from_its_baseline_in_the_four_settings_of_the_paper(family: str) -> None:
    recipe = read_recipe(f"{family}_sslight")
    assert recipe.inherits == f"{family}_baseline"
    assert recipe.changes == {
        "global_pair_weight": 0.4,
        "views.global_scale": [0.3, 1.0],
        "views.local_scale": [0.05, 0.3],
        "views.local_size": 128,
    }


@pytest.mark.parametrize("size", ["", "_64"])
def test_the_recipe_beyond_the_paper_differs_from_sslights_in_two_settings(size: str) -> None:
    recipe = read_recipe(f"moco_cnn_next{size}")
    assert recipe.inherits == f"moco_cnn_sslight{size}"
    assert recipe.changes == {"moco.koleo_weight": 0.03, "optim.name": "muon"}


@pytest.mark.parametrize("name", ["dino_cnn", "dino_vit", "swav_cnn", "moco_cnn"])
def test_64_px_recipes_differ_in_the_same_four_settings(name: str) -> None:
    recipe = read_recipe(f"{name}_sslight_64")
    assert recipe.inherits == f"{name}_baseline_64"
    assert recipe.changes == read_recipe(f"{name}_sslight").changes | {"views.local_size": 36}
    baseline, published = (load_recipe(f"{name}_baseline{size}") for size in ("_64", ""))
    assert (baseline.views.global_size, baseline.views.local_size) == (64, 28)
    for key in ("global_pair_weight", "method", "backbone"):
        assert getattr(baseline, key) == getattr(published, key)
    for key in ("global_scale", "local_scale", "flip_prob", "jitter", "blur_prob"):
        assert getattr(baseline.views, key) == getattr(published.views, key)


def test_64_px_recipes_of_vits_keep_the_published_colors_and_optimizer() -> None:
    small, published = load_recipe("dino_vit_baseline_64"), load_recipe("dino_vit_baseline")
    changed = {"global_size": 224, "local_size": 96, "num_local": 10}
    assert small.views.model_copy(update=changed) == published.views
    assert small.optim.model_copy(update={"warmup_epochs": 10}) == published.optim
    assert small.views.local_size % (small.patch_size or 0) == 0


def test_resolved_settings_read_back_equal(tmp_path: Path) -> None:
    settings = settings_of("dino_vit_sslight", "steps=7", "data.train=[a, b]", "lr=1e-3", "output=2024")
    assert settings.data.train == ["a", "b"]
    assert settings.lr == 1e-3
    assert settings.output == Path("2024")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(settings), encoding="utf-8")
    assert load_recipe(str(path)) == settings


def test_steps_take_the_place_of_the_recipes_epochs_and_back(tmp_path: Path) -> None:
    assert settings_of("dino_cnn_sslight", "steps=7").epochs is None
    path = tmp_path / "short.yaml"
    path.write_text("inherits: dino_cnn_sslight\nsteps: 7\nepochs: null\n", encoding="utf-8")
    settings = settings_of(str(path), "epochs=30")
    assert (settings.epochs, settings.steps) == (30, None)


def test_a_recipe_file_may_inherit_and_use_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("inherits: dino_cnn_sslight\nviews.num_local: 4\nviews:\n  local_size: 112\n", encoding="utf-8")
    settings = load_recipe(str(path), {"views": {"flip_prob": 0.0}, "batch_size": 64})
    assert (settings.views.num_local, settings.views.local_size, settings.views.flip_prob) == (4, 112, 0.0)
    assert settings.batch_size == 64
    assert settings.global_pair_weight == 0.4


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["epoch=3"], "epoch is not a setting: did you mean epochs?"),
        (["local_size=3"], "did you mean views.local_size"),
        (["views.local_siz=3"], "did you mean views.local_size"),
        (["views=3"], "views is a group of settings: set one of views.num_global"),
        (["lr"], "'lr' is not of the form key=value"),
        (["lr=1", "lr=2"], "lr is given twice"),
        (["views.local_scale=[0.1"], "views.local_scale=[0.1 cannot be read as a value"),
        (["data.train="], "data.train= has no value"),
        (["batch_size=16", "lr=0.03"], "lr · batch_size / 256 = 0.001875 is not above optim.min_lr=0.0048"),
        (["lr=fast"], "lr=fast: input should be a valid number"),
        (["lr=-1"], "lr=-1: input should be greater than 0"),
        (["batch_size=1.5"], "batch_size=1.5: input should be a valid integer"),
        (
            ["views.local_scale=[0.05, 1.3]"],
            "views.local_scale=[0.05, 1.3]: must be two shares of the image area",
        ),
        (["views.global_scale=[0.5, 0.3]"], "0 < smallest ≤ largest ≤ 1"),
        (["views.local_size=300"], "views.local_size=300 is larger than views.global_size=224"),
        (["views.jitter=[0.4, 0.4, 0.2, 0.6]"], "views.jitter"),
        (["precision=8"], "precision=8: input should be '32', 'bf16', '16' or 'auto'"),
        (["devices=0"], "devices=0: must be auto, cpu, gpu or a number of GPUs"),
        (["steps=3", "epochs=3"], "both epochs=3 and steps=3 given"),
        (["epochs=null"], "neither given: set one of epochs and steps"),
        (["epochs=2"], "optim.warmup_epochs=10 is not shorter than epochs=2: set optim.warmup_epochs=0.1"),
        (["optim.schedule=multistep"], "needs optim.milestones"),
        (
            ["method=moco", "batch_size=96"],
            "moco.queue_size=65536 is not a multiple of the global batch 96; the nearest sizes are 65472 and 65568",
        ),
        (
            ["method=moco", "batch_size=96", "moco.queue_size=64"],
            "moco.queue_size=64 is not a multiple of the global batch 96; the nearest size is 96",
        ),
        (["method=moco", "views.num_global=3"], "views.num_global=3, but MoCo takes one global view for the key"),
        (
            ["method=swav", "swav.queue_size=512"],
            "swav.queue_size=512 is smaller than the global batch 1024: set 0 for no queue, or 1024 or more",
        ),
        (["method=byol"], "method=byol: input should be 'dino', 'swav' or 'moco'"),
        (["optim.name=adam"], "optim.name=adam: input should be 'lars', 'muon', 'adamw' or 'sgd'"),
    ],
)
def test_a_wrong_setting_ends_in_a_sentence(assignments: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        settings_of("dino_cnn_sslight", *assignments)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "assignments",
    [
        ["views.num_local=0", "global_pair_weight=0.3"],
        ["views.num_local=0", "views.local_size=96"],
        ["init=smooth", "init_from=backbone.safetensors"],
        ["optim.name=adamw", "optim.momentum=0.8"],
        ["optim.name=sgd", "optim.lars_eta=0.01"],
        ["optim.gamma=0.5"],
        ["optim.schedule=multistep", "optim.milestones=[3]", "optim.min_lr=0.1"],
        ["optim.warmup_epochs=0", "optim.warmup_start=0.1"],
        ["data.subset_seed=3"],
        ["probe.knn_k=5"],
        ["probe.knn=false", "data.val=images"],
        ["dino.warmup_teacher_temp_epochs=0", "dino.warmup_teacher_temp=0.05"],
        ["moco.queue_size=1024"],
        ["swav.queue_size=0"],
        ["method=moco", "dino.student_temp=0.2"],
        ["method=swav", "moco.temperature=0.1"],
        ["method=swav", "swav.queue_size=0", "swav.queue_start_epoch=3"],
    ],
)
def test_a_setting_without_effect_is_an_error(assignments: list[str]) -> None:
    with pytest.raises(ValueError, match="would have no effect: "):
        settings_of("dino_cnn_sslight", *assignments)


def test_all_that_makes_knn_measured_is_named_where_nothing_does() -> None:
    names = ["data.val", "probe.train", "probe.knn=true"]
    with pytest.raises(ValueError, match=f"no kNN accuracy is measured without {', '.join(names[:2])} or {names[2]}"):
        settings_of("dino_cnn_sslight", "probe.knn_k=5")
    for name in names:
        given = name if "=" in name else f"{name}=images"
        assert settings_of("dino_cnn_sslight", "probe.knn_k=5", given).measures_knn


def test_no_local_views_keep_what_the_recipe_says_of_them() -> None:
    assert settings_of("dino_cnn_sslight", "views.num_local=0").views.num_local == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dino_cnn_sslite", "there is no recipe 'dino_cnn_sslite': did you mean dino_cnn_sslight"),
        ("zzz", "there is no recipe 'zzz': the recipes are dino_cnn_baseline"),
        ("missing.yaml", "recipe file missing.yaml cannot be read (No such file or directory)"),
    ],
)
def test_an_unknown_recipe_names_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        load_recipe(name)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("inherits: [", "is not valid YAML"),
        ("just words", "holds no settings"),
        ("epoch: 3", "epoch is not a setting"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_wrong_recipe_file_ends_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r".") as error:
        load_recipe(str(path))
    assert sentence in str(error.value)
    assert str(path) in str(error.value)


def test_recipes_that_inherit_in_a_ring_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(f"inherits: {second}\n", encoding="utf-8")
    second.write_text(f"inherits: {first}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="inherits itself"):
        load_recipe(str(first))


def theirs_flat(recorded: dict[str, Any], name: str) -> dict[str, Any]:
    """The original's settings of a recipe that are in no group."""
    merged = {**recorded["pretraining_defaults"], **recorded["pretraining"][name]}
    return {key: value for key, value in merged.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_hold_the_recorded_settings_of_the_original(name: str) -> None:
    recorded = json.loads((Path(__file__).parents[2] / "golden" / "recipes.json").read_text(encoding="utf-8"))
    settings = load_recipe(name)
    theirs = {
        section: {**values, **recorded["pretraining"][name].get(section, {})}
        for section, values in recorded["pretraining_defaults"].items()
        if isinstance(values, dict)
    }
    solver, views, dino, head = (
        theirs["SOLVER"],
        theirs["MULTI_VIEWS_TRANSFORMS"],
        theirs["DINO"],
        theirs["DINOHead"],
    )
    ours = settings.views
    assert [*ours.global_scale, *ours.local_scale] == views["GLOBAL_CROPS_SCALE"] + views["LOCAL_CROPS_SCALE"]
    assert [ours.global_size, ours.local_size, ours.num_local] == [
        views["GLOBAL_CROP_SIZE"],
        views["LOCAL_CROP_SIZE"],
        views["LOCAL_CROPS_NUMBER"],
    ]
    assert list(ours.blur_prob) == views["GAUSSIAN_BLUR_PROB"]
    assert list(ours.solarize_prob) == views["SOLARIZATION_PROB"]
    assert list(ours.jitter) == views["COLOR_JITTER_INTENSITY"]
    assert [ours.jitter_prob, ours.grayscale_prob, ours.flip_prob] == [
        views["COLOR_JITTER_PROB"][0],
        views["GREYSCALE_PROB"][0],
        views["RANDOM_HORIZONTAL_FLIP_PROB"][0],
    ]
    num_local = ours.num_local
    weight = settings.global_pair_weight
    assert (2 / (2 + 2 * num_local) if weight is None else weight) == pytest.approx(views["LAMBDAS"][0], abs=1e-6)
    optim = settings.optim
    final = optim.weight_decay if optim.weight_decay_final is None else optim.weight_decay_final
    assert [
        settings.lr,
        optim.min_lr,
        optim.weight_decay,
        final,
        optim.warmup_epochs,
        optim.warmup_start,
    ] == [
        solver[key]
        for key in (
            "BASE_LR",
            "MIN_LR",
            "WEIGHT_DECAY",
            "WEIGHT_DECAY_END",
            "WARMUP_EPOCHS",
            "START_WARMUP",
        )
    ]
    assert optim.name == solver["OPTIMIZING_METHOD"].lower()
    assert optim.momentum == solver["MOMENTUM"]
    assert settings.epochs == solver["TOTAL_EPOCHS"]
    assert settings.method == theirs_flat(recorded, name)["SSL_METHOD"].lower()
    group = theirs[OWN_GROUP[settings.method]]
    if settings.method == "swav":
        swav = settings.swav
        assert group == {
            "EPOCH_QUEUE_STARTS": swav.queue_start_epoch,
            "EPSILON": swav.epsilon,
            "FREEZE_PROTOTYPES_EPOCHS": swav.freeze_prototypes_epochs,
            "HIDDEN_SIZE": swav.head_hidden_dim,
            "NMB_PROTOTYPES": swav.num_prototypes,
            "NUM_LAYERS": swav.head_layers,
            "OUTPUT_DIM": swav.head_output_dim,
            "QUEUE_LENGTH": swav.queue_size,
            "SINKHORN_ITERATIONS": swav.sinkhorn_iterations,
            "TEMPERATURE": swav.temperature,
            "USE_BN_IN_HEAD": swav.head_batch_norm,
        }
    elif settings.method == "moco":
        moco = settings.moco
        assert group == {
            "GLOBAL_ONLY": False,
            "HIDDEN_SIZE": moco.head_hidden_dim,
            "MOMENTUM": moco.key_momentum,
            "NUM_LAYERS": moco.head_layers,
            "OUTPUT_DIM": moco.head_output_dim,
            "QUEUE_LENGTH": moco.queue_size,
            "TEMPERATURE": moco.temperature,
            "USE_BN_IN_HEAD": moco.head_batch_norm,
        }
    else:
        assert settings.dino.freeze_last_layer_epochs == solver["FREEZE_LAST_LAYER"]
        assert settings.dino.teacher_momentum == theirs["MODEL"]["MODEL_MOMENTUM"]
        assert [
            settings.dino.center_momentum,
            settings.dino.student_temp,
            settings.dino.warmup_teacher_temp,
            settings.dino.teacher_temp,
            settings.dino.warmup_teacher_temp_epochs,
        ] == [
            dino[key]
            for key in (
                "CENTER_MOMENTUM",
                "STUDENT_TEMP",
                "WARMUP_TEACHER_TEMP",
                "TEACHER_TEMP",
                "WARMUP_TEACHER_TEMP_EPOCHS",
            )
        ]
        assert [
            settings.dino.head_layers,
            settings.dino.head_hidden_dim,
            settings.dino.head_bottleneck_dim,
            settings.dino.head_output_dim,
            settings.dino.head_batch_norm,
            settings.dino.norm_last_layer,
        ] == [
            head[key]
            for key in (
                "NUM_LAYERS",
                "HIDDEN_SIZE",
                "BOTTLENECK_DIM",
                "OUTPUT_DIM",
                "USE_BN_IN_HEAD",
                "NORM_LAST_YEAR",
            )
        ]
    assert settings.batch_size == 8 * recorded["pretraining_defaults"]["TRAIN"]["BATCH_SIZE"]
    assert settings.drop_path == (0.1 if "vit" in name else 0.0)
