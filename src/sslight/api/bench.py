"""How fast the loader and the training step are on the user's own data and settings, and what holds them up."""

from sslight.config import PretrainSettings
from sslight.data import ReadLimits, Source, build_training_source, check_readable
from sslight.pretraining.speed import LoaderSpeed, StepSpeed, loader_speed, step_speed


def bench_loader(settings: PretrainSettings, *, seconds: float) -> LoaderSpeed:
    """How fast the loader is alone on the data and settings of a run. Raises ValueError if these are wrong."""
    return loader_speed(settings, _images(settings), seconds=seconds)


def bench_step(settings: PretrainSettings, *, steps: int) -> StepSpeed:
    """How fast a training step is on them, and its parts. Raises ValueError if these are wrong."""
    return step_speed(settings, _images(settings), steps=steps)


def _images(settings: PretrainSettings) -> Source:
    source = build_training_source(settings.data, labeled=settings.probe.linear)
    check_readable(source, limits=ReadLimits(settings.data.max_pixels, settings.data.read_timeout))
    return source
