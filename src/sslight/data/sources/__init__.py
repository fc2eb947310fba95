"""Where encoded images come from: folders, lists, H5 files, tar shards, stores, drawn shapes."""
