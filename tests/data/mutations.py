"""Damage to files, drawn with a seed."""

import numpy as np


def mutated(content: bytes, seed: int) -> bytes:
    """The content cut short, or with some bytes or bits changed, pieces overwritten, moved, repeated or removed."""
    rng = np.random.default_rng(seed)
    damaged = bytearray(content)
    if rng.random() < 0.15:
        return bytes(damaged[: rng.integers(len(damaged))])
    kind = rng.integers(5)
    # Half of the damage lies in the first bytes, where the headers are.
    reach = len(damaged) if rng.random() < 0.5 else min(len(damaged), 512)
    for _ in range(int(rng.integers(1, 12))):
        place, length = int(rng.integers(reach)), int(rng.integers(1, 64))
        match kind:
            case 0:
                damaged[place % len(damaged)] = int(rng.integers(256))
            case 1:
                damaged[place % len(damaged)] ^= 1 << int(rng.integers(8))
            case 2:
                piece = bytes([int(rng.choice([0, 255, 127, 128]))]) * length
                damaged[place : place + length] = piece[: len(damaged[place : place + length])]
            case 3:
                start = int(rng.integers(len(damaged)))
                damaged[place:place] = damaged[start : start + length]
            case _:
                del damaged[place : place + min(length, len(damaged) - 1)]
    return bytes(damaged)
