"""A backbone as files for other programs and devices, each checked against the PyTorch network and measured."""
