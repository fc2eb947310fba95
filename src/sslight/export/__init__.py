"""Write a backbone as files for other programs and devices; each is checked against the PyTorch network."""
