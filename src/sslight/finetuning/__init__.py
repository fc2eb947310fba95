"""The supervised task: a network trained with labels."""
