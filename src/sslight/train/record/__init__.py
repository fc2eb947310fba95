"""What a run leaves behind and shows: its folder, checkpoints, log and progress."""
