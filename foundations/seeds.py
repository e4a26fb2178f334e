"""Random seeds: each run has one seed, from which an independent seed is derived for each purpose."""

import hashlib
import secrets

NOT_CHOSEN = -1
LARGEST = 2**63 - 1
DRAWN = 2**31  # drawn seeds are smaller


def draw() -> int:
    """A random seed from the operating system, for a run without a chosen seed."""
    return secrets.randbelow(DRAWN)


def derive(seed: int, *purpose: object) -> int:
    """The seed of one random stream of a run, in [0, 2^63).

    Streams of different purposes are independent: more draws from one stream (for a larger query set) do not change the others
    (initialisation, data order).

    Args:
        seed: the seed of the run.
        purpose: words and numbers that name the stream.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
