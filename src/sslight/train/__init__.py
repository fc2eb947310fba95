"""The training loop, its checkpoints and its run folder."""

from sslight.train.benchmark import LoaderSpeed, StepSpeed, loader_speed, step_speed
from sslight.train.checkpoints import load_checkpoint
from sslight.train.detection import train_detector
from sslight.train.devices import Placement, batch_size_per_process, build_fabric, place
from sslight.train.health import HealthWatch
from sslight.train.loop import TrainingResult, TrainingStopped, train
from sslight.train.probes import MethodWithProbe
from sslight.train.processes import AnotherProcessFailed, check_agreement, ending_with_others, failing_together
from sslight.train.progress import duration
from sslight.train.run_folder import RunFolder
from sslight.train.schedule import run_length

__all__ = [
    "AnotherProcessFailed",
    "HealthWatch",
    "LoaderSpeed",
    "MethodWithProbe",
    "Placement",
    "RunFolder",
    "StepSpeed",
    "TrainingResult",
    "TrainingStopped",
    "batch_size_per_process",
    "build_fabric",
    "check_agreement",
    "duration",
    "ending_with_others",
    "failing_together",
    "load_checkpoint",
    "loader_speed",
    "place",
    "run_length",
    "step_speed",
    "train",
    "train_detector",
]
