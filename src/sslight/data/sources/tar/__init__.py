"""Images in tar shards, on a disk or in a store: the source, the members of a tar file, and the index of each shard."""
