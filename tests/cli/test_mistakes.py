"""Mistakes that people make at the command line: one sentence with the setting or file, the rule and the remedy."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sslight.backbones import build_backbone, save_backbone
from sslight.cli.main import main
from sslight.config import load_recipe, to_yaml

RUN = "pretrain dino_cnn_sslight_64 data.train=photos output=runs/second"
SHORT = f"{RUN} batch_size=4 steps=1 workers=0 optim.warmup_epochs=0.1"
LABELED = "data.train=labeled/train data.val=labeled/val"

MISTAKES = [
    # commands and first words
    ("pretrian auto", "No such command 'pretrian'. Did you mean 'pretrain'?"),
    ("train photos", "No such command 'train'. Did you mean 'pretrain'?"),
    ("nosuch --help", "No such command 'nosuch'; `sslight --help` shows what to type."),
    ("bench nosuch --help", "No such command 'nosuch'; `sslight bench --help` shows what to type."),
    ("data inspet photos", "No such command 'inspet'. Did you mean 'inspect'?"),
    ("pretrain", "no RECIPE given: write `sslight pretrain RECIPE [KEY=VALUE]...`, such as `sslight pretrain auto da"),
    ("pretrain epochs=10", "no RECIPE given"),
    ("evaluate", "no PROTOCOL given: write `sslight evaluate PROTOCOL CHECKPOINT [KEY=VALUE]...`, such as"),
    ("evaluate knn", "no CHECKPOINT given"),
    ("export data.check=photos", "no RUN given: write `sslight export RUN [KEY=VALUE]...`"),
    ("views recipe=quickstart", "no IMAGES given: write `sslight views IMAGES [KEY=VALUE]...`"),
    ("predict runs/first", "no IMAGES given: write `sslight predict MODEL IMAGES... [KEY=VALUE]...`"),
    ("pretrain dino_cnn_sslite", "there is no recipe 'dino_cnn_sslite': did you mean dino_cnn_sslight"),
    ("pretrain DINO_CNN_SSLIGHT_64", "there is no recipe 'DINO_CNN_SSLIGHT_64': did you mean dino_cnn_sslight_64"),
    ("recipes dino", "there is no recipe 'dino': the recipes are dino_cnn_baseline, "),
    ("recipes lr=3", "lr=3 has no place in `sslight recipes [NAME]`: leave it out."),
    ("pretrain photos", "photos is a folder without a run (config.yaml) and not a recipe: if it holds images, write "),
    ("pretrain runs/frist", "there is no recipe and no run runs/frist: check the path; did you mean runs/first?"),
    ("pretrain mine.yml", "recipe file mine.yml cannot be read (No such file or directory); check the path; did you "),
    ("pretrain mine.yaml", "recipe mine.yaml: epoch is not a setting: did you mean epochs?"),
    ("pretrain notes.txt", "recipe notes.txt holds no settings: write lines of the form `name: value`."),
    ("pretrain --cfg nowhere.yaml", "configuration nowhere.yaml cannot be read (No such file or directory)"),
    ("evaluate fewshot runs/first", "fewshot is not a protocol: choose knn, linear, semi or detect."),
    ("evaluate detct runs/first", "detct is not a protocol: did you mean detect?"),
    ("evaluate runs/first knn", "runs/first and knn are exchanged: write `sslight evaluate PROTOCOL CHECKPOINT"),
    ("predict photos runs/first output=p.csv", "photos and runs/first are exchanged: write `sslight predict MODEL IM"),
    ("config exprt", "exprt is neither a setting nor a command: did you mean export?"),
    ("config view.local_size", "view.local_size is not a setting: did you mean views.local_size"),
    # the form of a setting
    (f"{RUN} --epochs 10", "--epochs is no option: settings are typed without dashes, epochs=10."),
    (f"{RUN} --batch-size=64", "--batch-size is no option: settings are typed without dashes, batch_size=64."),
    (f"{RUN} -epochs 10", "-epochs is no option: settings are typed without dashes, epochs=10."),
    (f"{RUN} --epoch 10", "--epoch is no option, and epoch is not a setting: did you mean epochs?"),
    (f"{RUN} --fast", "--fast is no option, and fast is not a setting: `sslight config` lists all settings."),
    ("data inspect photos --workers 4", "--workers is no option: settings are typed without dashes, workers=4."),
    ("bench step quickstart --steps 4", "--steps is no option: settings are typed without dashes, steps=4."),
    ("bench loader quickstart --seconds 4", "--seconds is no option: settings are typed without dashes, seconds=4."),
    ("views photos --recipe quickstart", "--recipe is no option: settings are typed without dashes, recipe=quickst"),
    ("plan photos --save p.yaml", "--save is no option: settings are typed without dashes, save=p.yaml."),
    ("import odd.pt --network teacher", "--network is no option: settings are typed without dashes, network=teach"),
    ("config --from-original mine.yaml", "settings are typed without dashes, from_original=mine.yaml."),
    (f"{RUN} data.val = photos", "data.val and its value are apart: write data.val=photos, without spaces."),
    (f"{RUN} data.val= photos", "write data.val=photos, without spaces."),
    (f"{RUN} epochs 10", "epochs and its value are apart: write epochs=10, without spaces."),
    (f"{RUN} epochs:10", "epochs:10 is not of the form key=value: write epochs=10."),
    ("embed runs/first photos output f.npz", "output and its value are apart: write output=f.npz, without spaces."),
    ("pretrain auto data.train=my images", "a value with spaces needs quotes, as in 'data.train=my images'."),
    ("pretrain auto photos", "'photos' is not of the form key=value: did you mean data.train=photos?"),
    ("data pack photos shards", "'shards' is not of the form key=value: did you mean output=shards?"),
    ("views photos dino_cnn_sslight", "did you mean recipe=dino_cnn_sslight?"),
    ("export runs/first photos", "did you mean data.check=photos?"),
    (f"{RUN} epochs=", "epochs= has no value: give one, or null for none."),
    (f"{RUN} lr=", "lr= has no value: give one."),
    (f"{RUN} epochs=10 epochs=20", "epochs is given twice: once as 10 and once as '20'; keep one."),
    # names of settings
    (f"{RUN} epoch=10", "epoch is not a setting: did you mean epochs?"),
    (f"{RUN} batchsize=64", "batchsize is not a setting: did you mean batch_size"),
    (f"{RUN} learning_rate=0.1", "learning_rate is not a setting: did you mean lr?"),
    (f"{RUN} train=photos", "train is not a setting: did you mean data.train"),
    (f"{RUN} views=small", "views is a group of settings: set one of views.num_global"),
    (f"{RUN} views.blur_radius=[0.1,1]", "views.blur_radius is now called views.blur_sigma: write that name."),
    (f"evaluate semi runs/first {LABELED} checkpoint_every_steps=5", "is now called checkpoint.every_steps: write "),
    ("plan photos hour=8", "hour is not a setting: did you mean hours?"),
    ("evaluate knn runs/first epochs=3", "epochs is not a setting: did you mean"),
    ("evaluate detect runs/first data.train=photos", "data.train is not a setting: did you mean data"),
    ("embed runs/first photos device=cuda", "device is now called devices: write that name."),
    # values
    (f"{RUN} epochs=ten", "epochs=ten: input should be a valid integer"),
    (f"{RUN} workers=false", "workers=False: must be a number, which true and false are not"),
    (f"{RUN} lr=0,1", "lr=0,1: input should be a valid number"),
    (f"{RUN} views.global_scale=0.3,1", "in a shell with quotes: 'views.global_scale=[0.3,1]'"),
    (f"{RUN} views.global_scale=[0.3, 1]", "lists need both brackets, and quotes in a shell"),
    (f"{RUN} precision=fp16", "precision=fp16: input should be '32', 'bf16', '16' or 'auto'"),
    (f"{RUN} optim.name=adam", "input should be 'lars', 'muon', 'adamw' or 'sgd'; did you mean adamw; `ssl"),
    (f"{RUN} devices=cuda:0", "devices=cuda:0: must be auto, cpu, gpu or a number of GPUs"),
    (f"{RUN} devices=gpu", "devices=gpu, but this machine has no GPU that PyTorch can use: set devices=cpu or auto."),
    (f"{RUN} backbone=resnet19", "backbone=resnet19 is not a known network: the nearest names are resnet18"),
    (f"{RUN} moco.queue_size=64", "moco.queue_size=64 would have no effect: method=dino"),
    (f"{RUN} steps=5 epochs=5", "both epochs=5 and steps=5 given: set one"),
    (f"{RUN} hours=8", "hours=8 works with auto, which chooses the length; dino_cnn_sslight_64 has "),
    ("evaluate knn runs/first linear.epochs=3", "linear.epochs=3 would have no effect: the protocol is knn"),
    ("evaluate detect runs/first train_sizes=600,800", "in a shell with quotes: 'train_sizes=[600,800]'"),
    ("bench loader quickstart steps=3", "steps=3 would have no effect: set seconds"),
    ("bench loader quickstart precision=bf16", "precision=bf16 would have no effect on `sslight bench loader`: "),
    ("bench step quickstart init_from=runs/first", "init_from=runs/first would have no effect on `sslight bench ste"),
    ("export runs/first format=onxx", "format=onxx: input should be 'safetensors', "),
    ("export runs/first format=onnx,onnx-int8", "in a shell with quotes: 'format=[onnx,onnx-int8]'"),
    ("export runs/first input=normalised", "input=normalised: is now written input=normalized"),
    ("data pack photos output=s format=zip", "format=zip: input should be 'h5' or 'tar'; `sslight config pack.format`"),
    ("embed runs/first photos output=f.npy", "output=f.npy: must end in .npz or .csv or .parquet; `sslight config"),
    ("embed runs/first photos output=f.npz devices=gpu", "devices=gpu, but this machine has no GPU that PyTorch"),
    ("embed runs/first photos output=f.npz devices=cuda", "devices=cuda: is now written devices=gpu;"),
    ("plan photos data.train=photos", "data.train=photos and photos are both given: keep one."),
    # files and folders
    ("pretrain dino_cnn_sslight_64 data.train=photos", "output is not set: give a folder for this run"),
    ("bench step dino_cnn_sslight_64", "data.train is empty: set it to a folder of images"),
    ("data pack photos", "output is not set: give one, such as output=shards; `sslight config pack.output` explains "),
    ("export runs/first", "data.check is not set: give real images"),
    ("evaluate knn runs/first data.train=labeled/train", "data.val is not set: give labeled images"),
    ("views photo", "IMAGES=photo does not exist; give a folder of images, an H5 file, tar shards, Parquet files or "),
    ("data inspect photo", "; did you mean photos?"),
    ("data inspect photos/0.jpg", "IMAGES=photos/0.jpg is a file, but not .h5, .tar or .parquet; give a folder"),
    ("views runs/first", "IMAGES=runs/first holds no images (skipped: 1 .safetensors, 1 .yaml); give a folder wi"),
    (f"{RUN.replace('photos', 'photo')}", "data.train=photo does not exist; "),
    (f"{RUN.replace('second', 'first')}", "output=runs/first holds a run that ended before its first checkpoint: add"),
    (f"{RUN.replace('runs/second', 'notes.txt')}", "output=notes.txt is a file: give a folder."),
    (f"{RUN} resume=true", "resume=true, but runs/second/checkpoints/last.pt does not exist (there is no run): leave"),
    (f"{SHORT} data.val=photos", "data.val=photos has 5 of 5 images outside any sub-folder, so it has no labels"),
    (f"{SHORT} data.subset=lst.csv", "; did you mean list.csv?"),
    (f"{RUN} backbone=test_resnet batch_size=1000000", "batch_size=1000000 is more than the "),
    (f"{SHORT} init_from=runs/first", "runs/first/backbone.safetensors is of backbone=test_resnet: set that, or giv"),
    (f"evaluate knn runs/frist {LABELED}", "there is no file runs/frist: give a run folder, or a file of weights"),
    (f"evaluate knn runs/frist {LABELED}", "; did you mean runs/first?"),
    (f"evaluate knn runs {LABELED}", "runs is a folder without a run (config.yaml): give a run folder or a file of w"),
    (f"evaluate knn notes.txt {LABELED}", "notes.txt is not a file of backbone weights, or is damaged: give a"),
    (f"evaluate knn resnet18 {LABELED}", "; did you mean timm:resnet18?"),
    ("import odd.pt output=b.safetensors", "odd.pt holds no weights: give a run folder, or a file of weights"),
    ("import runs/first output=b.safetensors", "runs/first was written by this program: use it directly."),
    ("predict runs/first photos output=p.csv", "runs/first has no classifier: give the run folder of `sslight finet"),
    ("embed runs/first photos/9.jpg output=f.csv", "; did you mean photos/"),
    ("evaluate detect runs/first data=photos", "data=photos contains neither annotations/ (COCO) nor VOC2007/"),
    ("finetune runs/first data.train=photos data.labels=list.csv data.val=labeled/val output=c", "data.labels=list.c"),
    ("finetune timm:resnet18 data.train=a data.val=b output=c", "is a network without weights: add init=random"),
    ("report runs/frist", "runs/frist does not exist: give the folder that `sslight pretrain` wrote (its output=); d"),
    ("compare runs/frist runs/first", "give a results.json or its folder; did you mean runs/first?"),
    ("pretrain auto 'my photos'", "did you mean 'data.train=my photos'?"),
    ("pretrain 'my photos'", "write sslight pretrain auto 'data.train=my photos' output=runs/first."),
    ("compare runs/first", "runs/first is a run without results: measure it with `sslight evaluate knn runs/first .."),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: images, labelled images, a finished run, and files of other kinds."""
    root = tmp_path_factory.mktemp("world")
    from PIL import Image

    folders = [
        "photos",
        "my photos",
        *(f"labeled/{part}/{name}" for part in ("train", "val") for name in ("ant", "bee")),
    ]
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (40, 40), (40 * number, 90, 20)).save(root / folder / f"{number}.jpg")
    run = root / "runs/first"
    run.mkdir(parents=True)
    settings = load_recipe("dino_cnn_sslight_64", {"data.train": "photos", "output": "runs/first"})
    (run / "config.yaml").write_text(to_yaml(settings), encoding="utf-8")
    save_backbone(
        build_backbone("test_resnet", image_size=32), run / "backbone.safetensors", name="test_resnet",
        image_size=32, patch_size=None, notes={}, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
    )  # fmt: skip
    (root / "mine.yaml").write_text("inherits: dino_cnn_sslight_64\nepoch: 3\n", encoding="utf-8")
    (root / "notes.txt").write_text("words", encoding="utf-8")
    (root / "list.csv").write_text("nobody.jpg,ant\n", encoding="utf-8")
    torch.save({"a": 1}, root / "odd.pt")
    return root


@pytest.fixture
def typed(
    world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    monkeypatch.chdir(world)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sslight", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(("line", "sentence"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_answered_with_what_to_type(
    line: str, sentence: str, world: Path, typed: Callable[[str], tuple[int, str, str]]
) -> None:
    before = sorted(world.rglob("*"))
    code, out, err = typed(line)
    said = [each for each in err.splitlines() if not each.startswith("of runs/first: ")]  # progress, not a sentence
    assert (code, out, len(said)) == (2, "", 1), err
    assert said[0].startswith("sslight: ")
    assert said[0].endswith((".", "?"))
    assert sentence in said[0]
    assert sorted(world.rglob("*")) == before
