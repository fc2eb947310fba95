"""What can be set: names, types, rules and meanings, one file for each command or part of a run."""
