"""Further queries that a teacher is asked during an extraction.

Axes: Q queries.
"""

from __future__ import annotations

import torch

from extraction.session import Session
from foundations.errors import ConfigError
from foundations.seeds import derive

CHECKED = 100  # further held-out queries for the certificate


def with_checked_queries(session: Session) -> Session:
    """The session with more held-out queries, if a black box can be asked: halfway between two queries of the training set.

    They are inside the region of the queries, but no policy has chosen them, so that a network that is right on the queries of `--datagen`
    alone does not pass.
    """
    generator = torch.Generator().manual_seed(derive(session.seed, "certificate queries"))
    pairs = torch.randint(len(session.queries), (2, CHECKED), generator=generator).to(session.queries.device)
    try:
        return session.with_held_out(session.queries[pairs].mean(0), "certificate")
    except ConfigError as error:  # there is a network already
        session.say(f"Note: the certificate does without further queries: {error}")
        return session
