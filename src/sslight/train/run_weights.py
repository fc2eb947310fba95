"""Which weights of a run stand for it, where a run folder is given in place of a file."""

from pathlib import Path

from sslight.train.checkpoints import kept_checkpoints
from sslight.train.run_folder import RunFolder


def weights_in(checkpoint: str, *, whole: bool = False) -> str:
    """The file of weights that ``checkpoint`` means: itself, or of a run folder its export or newest checkpoint.

    The export is that of the whole run: one from before the run was continued is passed over. With ``whole``, what
    only checkpoints hold is wanted (the teacher, the projection head), if there are any. Names of public weights stay.
    Raises ValueError for a folder that is none of a run, or of one without weights yet.
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
        raise ValueError(f"{checkpoint} is a run without weights yet: wait for its first checkpoint.")
    return str(checkpoints[0])
