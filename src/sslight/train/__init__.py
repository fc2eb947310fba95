"""The training loop, its checkpoints and its run folder."""

from sslight.train.loop import TrainingResult, train
from sslight.train.machine.devices import Placement, batch_size_per_process, build_fabric, place
from sslight.train.processes import AnotherProcessFailed, check_agreement, ending_with_others, failing_together
from sslight.train.record.checkpoints import load_checkpoint
from sslight.train.record.progress import duration
from sslight.train.record.run_folder import RunFolder
from sslight.train.record.run_weights import weights_in
from sslight.train.task import Callback, Output, RunOptions, Task, TrainingStopped, Verdict

__all__ = [
    "AnotherProcessFailed", "Callback", "Output", "Placement", "RunFolder", "RunOptions", "Task", "TrainingResult",
    "TrainingStopped", "Verdict", "batch_size_per_process", "build_fabric", "check_agreement", "duration",
    "ending_with_others", "failing_together", "load_checkpoint", "place", "train", "weights_in",
]  # fmt: skip
