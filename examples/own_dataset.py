"""Images that are no files, from a dataset class of your own: `python examples/own_dataset.py pixels.npy`.

Here they are grey 16-bit pixels [N, H, W] in one NumPy array, as measuring devices write them. `MultiCrop` needs
uint8 RGB, so the class says how a picture is made of a measurement. The method is SwAV, whose loop is the shortest.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import sslight
from sslight.backbones import build_backbone, num_features, save_backbone
from sslight.views import collate, normalize

Sample = tuple[Sequence[torch.Tensor], int, int | None]
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Measurements(Dataset[Sample]):
    """Views, index and no label of each image; set ``epoch`` for other views."""

    def __init__(self, path: str, multi_crop: sslight.MultiCrop) -> None:
        self.pixels = np.load(path, mmap_mode="r")  # uint16 [N, H, W], read from the disk as needed
        self.multi_crop, self.epoch = multi_crop, 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        darkest, brightest = np.percentile(self.pixels[index], (1, 99))
        gray = (self.pixels[index] - darkest) / max(brightest - darkest, 1)
        picture = np.repeat((255 * gray.clip(0, 1)).astype(np.uint8)[None], 3, axis=0)
        return self.multi_crop(picture, key=(0, self.epoch, index)), index, None


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pixels")
    parser.add_argument("--size", type=int, default=224, help="side of the global views in px")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--prototypes", type=int, default=300)
    parser.add_argument("--output", default="backbone.safetensors")  # for sslight evaluate, embed and load_backbone
    args = parser.parse_args(words)

    local = args.size * 128 // 224  # size and scales are SSLight's; hue, saturation and grey mean nothing here
    gray = {"jitter": (0.4, 0.4, 0.0, 0.0), "grayscale_prob": 0.0, "solarize_prob": (0.0, 0.0)}
    dataset = Measurements(args.pixels, sslight.MultiCrop(2, 6, args.size, local, (0.3, 1.0), (0.05, 0.3), **gray))
    loader = DataLoader(dataset, args.batch_size, True, drop_last=True, collate_fn=partial(collate, num_global=2))
    backbone = build_backbone("resnet18")
    head = nn.Sequential(nn.Linear(num_features(backbone), 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128))
    prototypes = nn.Parameter(F.normalize(torch.randn(args.prototypes, 128), dim=1))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters(), prototypes], lr=1e-3)

    for dataset.epoch in range(args.epochs):
        for batch in loader:  # global views [2, B, 3, S, S], local views [6, B, 3, s, s]
            groups = [normalize(views, MEAN, STD) for views in (batch.global_views, batch.local_views)]
            embedded = F.normalize(torch.cat([head(backbone(group)) for group in groups]), dim=1)
            scores = (embedded @ F.normalize(prototypes, dim=1).T).unflatten(0, (8, -1))  # [V, B, P]
            targets = [sslight.sinkhorn(view.detach(), epsilon=0.05, num_iterations=3) for view in scores[:2]]
            loss = sslight.swav_loss(scores, torch.stack(targets), temperature=0.1, global_pair_weight=0.4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        chance = np.log(args.prototypes)
        print(f"epoch {dataset.epoch + 1} of {args.epochs}: loss {loss.item():.3f}, {chance:.3f} is chance")
    save_backbone(backbone, args.output, name="resnet18", image_size=args.size, patch_size=None, mean=MEAN, std=STD)


if __name__ == "__main__":
    main()
