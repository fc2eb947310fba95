import pytest

from sslight.config import DetectSettings, build
from sslight.evaluate.detection.schedule import DetectionSchedule, detection_schedule


def schedule(kind: str = "coco", **changes: object) -> DetectionSchedule:
    return detection_schedule(build(DetectSettings, changes, model="timm:resnet18"), kind)


def test_the_published_coco_schedules() -> None:
    once, twice = schedule(), schedule(schedule="2x")
    assert (once.total_steps, once.milestones, once.warmup_steps) == (90_000, (60_000, 80_000), 1000)
    assert (twice.total_steps, twice.milestones, twice.warmup_steps) == (180_000, (120_000, 160_000), 1000)
    assert once.train_sizes == (640, 672, 704, 736, 768, 800)
    rates = [once.rate_at(step) for step in (0, 999, 1000, 59_999, 60_000, 79_999, 80_000, 89_999)]
    assert rates == pytest.approx([2e-5, 0.02, 0.02, 0.02, 0.002, 0.002, 2e-4, 2e-4])


def test_the_published_voc_schedule() -> None:
    voc = schedule("voc")
    assert (voc.total_steps, voc.milestones, voc.warmup_steps) == (24_000, (18_000, 22_000), 100)
    assert (voc.train_sizes[0], voc.train_sizes[-1], len(voc.train_sizes)) == (480, 800, 11)


def test_rate_and_length_follow_the_batch() -> None:
    half = schedule(batch_size=8)
    assert (half.total_steps, half.milestones, half.peak) == (180_000, (120_000, 160_000), 0.01)


def test_a_short_run_keeps_the_shares_of_the_schedule() -> None:
    short = schedule(steps=90)
    assert (short.milestones, short.warmup_steps) == ((60, 80), 9)
    assert short.rate_at(0) == pytest.approx(2e-5)
    with pytest.raises(ValueError, match="warmup_steps=90 is not shorter than the run of 90 steps"):
        schedule(steps=90, warmup_steps=90)
