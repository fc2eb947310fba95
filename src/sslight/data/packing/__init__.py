"""Images written as one H5 file or as tar shards, and what is said of a set of images."""
