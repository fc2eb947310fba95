"""Fine-tune a pre-trained backbone with labels: `python examples/fine_tune.py runs/first/backbone.safetensors FOLDER`.

FOLDER holds `train` and `val`, each with one folder of images for each class. The backbone is a timm model, so all that
is known about training timm models holds for it. (`sslight evaluate semi` is the published protocol for few labels.)
"""

import argparse
from pathlib import Path

import torch
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import sslight
from sslight.backbones import read_backbone_info


def accuracy(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, torch.Tensor]], device: str) -> float:
    """Share of the images that get their own class."""
    model.eval()
    with torch.inference_mode():
        right = [model(images.to(device)).argmax(1).cpu() == labels for images, labels in loader]
    return torch.cat(right).float().mean().item()


def main(words: list[str] | None = None) -> None:
    """Train for a few epochs and write the classifier's state dict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backbone", help="a backbone.safetensors, a checkpoint, or a .pth.tar of the original")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--output", default="classifier.pt")
    args = parser.parse_args(words)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    info = read_backbone_info(args.backbone)  # the size and normalisation that the network knows
    size = (3, info.image_size, info.image_size)
    train = ImageFolder(args.folder / "train", create_transform(size, is_training=True, mean=info.mean, std=info.std))
    val = ImageFolder(args.folder / "val", create_transform(size, mean=info.mean, std=info.std))
    train_loader = DataLoader(
        train, args.batch_size, shuffle=True, drop_last=True
    )  # num_workers=8 where there are cores
    val_loader = DataLoader(val, args.batch_size)

    model = sslight.load_backbone(args.backbone)
    model.reset_classifier(len(train.classes))  # pre-training leaves a timm model without classifier
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    for epoch in range(args.epochs):
        model.train()
        for images, labels in train_loader:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        found = accuracy(model, val_loader, device)
        print(f"epoch {epoch + 1} of {args.epochs}: loss {loss.item():.3f}, validation accuracy {found:.1%}")
    torch.save(model.state_dict(), args.output)


if __name__ == "__main__":
    main()
