"""A run of the detection loop with a detector of a few weights; also a program, to run it in several processes."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslight.config import DetectSettings, build
from sslight.data import DetectionLoader, open_detection_sets
from sslight.evaluate.detection.schedule import DetectionSchedule
from sslight.evaluate.detection.task import DetectionTask, build_detection_task
from sslight.train import RunFolder, TrainingResult, build_fabric, place, train


class FewWeights(nn.Module):
    """Predicts the mean box and the number of objects of an image from its mean colour; no batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.head = nn.Linear(4, 5)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)
        self.noise = 0.0

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        colors = torch.stack([image.mean((1, 2)) for image in images])
        output = self.head(self.backbone(colors).tanh())
        boxes = torch.stack([target["boxes"].mean(0) / 64 for target in targets])
        numbers = torch.stack([target["labels"].float().mean() for target in targets])
        noise = self.noise * torch.rand(())  # as detectors sample their proposals
        return {
            "loss_boxes": (output[:, :4] - boxes).square().mean() * (1 + noise),
            "loss_numbers": (output[:, 4] - numbers).square().mean(),
        }


def run_few_weights(
    data: Path, output: Path, *, total_steps: int, detector: FewWeights | None = None, **changes: Any
) -> tuple[TrainingResult, FewWeights]:
    """Train on a COCO folder in a run folder; ``changes`` are settings."""
    detector = FewWeights() if detector is None else detector
    base = {"data": str(data), "output": str(output), "batch_size": 2, "log_every": 1, "logger": "none", "lr": 0.5}
    settings = build(DetectSettings, {**base, "devices": "cpu", **changes}, model="timm:test_resnet")
    fabric = build_fabric(settings, place("cpu"))
    fabric.launch()
    run = RunFolder(output)
    run.check(settings)
    fabric.barrier()
    if fabric.is_global_zero:
        run.create(settings)
    fabric.barrier()
    images, _ = open_detection_sets(str(data), train_split=[], val_split=[], masks=False)
    loader = DetectionLoader(
        images,
        sizes=[32, 48],
        longest=80,
        masks=False,
        batch_size=settings.batch_size // fabric.world_size,
        seed=settings.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    schedule = DetectionSchedule(total_steps, peak=0.5, milestones=(3,), warmup_steps=0, train_sizes=(32, 48))
    detection = DetectionTask(settings, detector, {}, images, 0, images, schedule, output)
    task, options = build_detection_task(detection, fabric)
    with closing(loader):
        result = train(task, fabric=fabric, loader=loader, run=run, options=options)
    return result, detector


if __name__ == "__main__":
    steps, every = int(sys.argv[3]), int(sys.argv[4])
    run_few_weights(Path(sys.argv[1]), Path(sys.argv[2]), total_steps=steps, checkpoint={"every_steps": every})
