"""DINO with the views of SSLight in a training loop of your own: `python examples/own_loop.py IMAGES`.

Taken from sslight are the views, the loss, the centre, the head, the optimiser and the schedule; networks and loop are
yours. `sslight pretrain` adds resuming, mixed precision, many GPUs, measuring, and images that cannot be read.
"""

import argparse
import copy
from pathlib import Path

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.utils.data import DataLoader, Dataset

import sslight
from sslight.data import decode
from sslight.methods import DINOHead
from sslight.optim import parameter_groups
from sslight.views import normalize


class Views(Dataset[list[torch.Tensor]]):
    """The views of every JPEG below a folder; set ``epoch`` for other ones."""

    def __init__(self, folder: Path, multi_crop: sslight.MultiCrop) -> None:
        self.files, self.multi_crop, self.epoch = sorted(folder.rglob("*.[jJ][pP]*[gG]")), multi_crop, 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        image = decode(self.files[index].read_bytes())  # uint8 [3, H, W], RGB, upright
        return self.multi_crop(image, key=(0, self.epoch, index))  # the same key gives the same views


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--recipe", default="dino_cnn_sslight", help="whose views are used")
    parser.add_argument("--backbone", default="mobilenetv2_100", help="any timm model")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--output", default="backbone.pt")
    args = parser.parse_args(words)
    device, statistics = "cuda" if torch.cuda.is_available() else "cpu", (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    dataset = Views(args.images, sslight.MultiCrop.from_recipe(args.recipe))
    loader = DataLoader(dataset, args.batch_size, shuffle=True, drop_last=True)  # num_workers=8 where there are cores
    backbone = timm.create_model(args.backbone, num_classes=0)
    head = DINOHead(backbone.head_hidden_size, output_dim=1024, batch_norm=True, norm_last_layer=True)
    student = nn.Sequential(backbone, head).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    center = torch.zeros(1024, device=device)
    optimizer = sslight.LARS(parameter_groups(student), lr=0.48)  # groups: biases and norms are not adapted
    peak, total = 0.48 * args.batch_size / 256, args.epochs * len(loader)

    for dataset.epoch in range(args.epochs):
        for step, batch in enumerate(loader, start=dataset.epoch * len(loader)):
            views = [normalize(view[None].to(device), *statistics) for view in batch]  # V tensors [B, 3, S, S]
            student_logits = torch.stack([student(view) for view in views])  # [V, B, K], global views first
            teacher_logits = torch.stack([teacher(view) for view in views[: dataset.multi_crop.num_global]])
            loss = sslight.dino_loss(
                student_logits, teacher_logits, center, student_temp=0.1, teacher_temp=0.04, global_pair_weight=0.4
            )
            for group in optimizer.param_groups:
                group["lr"] = sslight.cosine_schedule(step, base=peak, final=0.01 * peak, total_steps=total)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            center = sslight.update_center(center, teacher_logits, momentum=0.9)
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.data.lerp_(fast.data, 0.004)  # the teacher keeps 99.6 % of itself
            print(f"step {step + 1} of {total}: loss {loss.item():.3f}")
    torch.save(backbone.state_dict(), args.output)  # timm.create_model(NAME, num_classes=0, checkpoint_path=FILE)


if __name__ == "__main__":
    main()
