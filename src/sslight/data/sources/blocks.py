"""Sources whose images lie in shards, whatever is around them."""

import numpy as np
import numpy.typing as npt

from sslight.data.sources.combine import ConcatSource, SubsetSource, leaves
from sslight.data.sources.source import Source, part_at
from sslight.data.sources.tar.sharded import SHARDS_ONLY, ShardedTarSource


def shard_ends(source: Source) -> npt.NDArray[np.int64]:
    """Where the images of each shard end, rising, ``[S]``. Raises ValueError for a source built without ``Blocks``."""
    match source:
        case ShardedTarSource():
            return source.ends
        case SubsetSource():
            return np.searchsorted(source.indices, shard_ends(source.whole))
        case ConcatSource():
            starts = [0, *source.ends[:-1].tolist()]
            return np.concatenate([n + shard_ends(part) for n, part in zip(starts, source.parts, strict=True)])
        case _:
            raise ValueError(f"{source.locate(0)} is not in a shard that is gone through as one: {SHARDS_ONLY}")


def has_copies(source: Source) -> bool:
    """Whether :func:`copy_shard` has anything to copy."""
    return any(leaf.has_copies for leaf in leaves(source) if isinstance(leaf, ShardedTarSource))


def copy_shard(source: Source, index: int) -> None:
    """Copy the shard that holds an image to this machine's disk. Raises OSError, StoreUnavailable."""
    match source:
        case ShardedTarSource():
            source.copy_shard(index)
        case SubsetSource():
            copy_shard(source.whole, int(source.indices[index]))
        case ConcatSource():
            part, within = part_at(source.ends, index)
            copy_shard(source.parts[part], within)
