"""Which weights represent a run, and which run weights lie in."""

from pathlib import Path

from sslight.train.record.checkpoints import kept_checkpoints
from sslight.train.record.run_folder import RunFolder


def weights_in(checkpoint: str, *, whole: bool = False) -> str:
    """The weights file that ``checkpoint`` means: itself, or the export or newest checkpoint of a run folder.

    The export must be of the whole run: one from before the run was continued is ignored. ``whole`` prefers what only
    checkpoints hold (the teacher, the projection head). Names of public weights stay. Raises ValueError for a folder
    that is not a run, or a run without weights.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        return checkpoint
    run = RunFolder(folder)
    if not run.config.is_file():
        raise ValueError(
            f"{checkpoint} is a folder without a run (config.yaml): give a run folder or a file of weights."
        )
    checkpoints = kept_checkpoints(run.checkpoints)
    complete = run.backbone.is_file() and not (
        checkpoints and checkpoints[0].stat().st_mtime > run.backbone.stat().st_mtime
    )
    if complete and not (whole and checkpoints):
        return str(run.backbone)
    if not checkpoints:
        raise ValueError(
            f"{checkpoint} is a run that has no weights yet: wait for its first checkpoint, or start again."
        )
    return str(checkpoints[0])


def run_folder_of(checkpoint: str) -> Path:
    """The folder of the run that a checkpoint or a file of weights lies in."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent
