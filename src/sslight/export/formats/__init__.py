"""One file for each format: how it is written, and how it is opened again in its own runtime."""
