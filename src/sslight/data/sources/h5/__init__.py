"""Images in one H5 file: the source, and the index of what lies where."""
