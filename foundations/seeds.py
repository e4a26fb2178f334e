"""Where randomness comes from: one seed a run, and from it one independent stream for each use."""

import hashlib
import secrets

NOT_CHOSEN = -1


def draw() -> int:
    """A fresh seed from the operating system, for a run whose seed was not chosen."""
    return secrets.randbelow(2**31)


def derive(seed: int, *purpose: object) -> int:
    """The seed of one stream of a run, in [0, 2^63).

    Streams of different purposes are independent, so that drawing more from one (a larger query set, say) leaves the
    others (initialisation, data order) as they were.

    Args:
        seed: the run's seed.
        purpose: words and numbers that name the stream.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
