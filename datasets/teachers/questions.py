"""The questions of one run to a live teacher: through the ledger, within the budget, counted by phase."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from datasets.teachers.ledger import Ledger, keys_of
from datasets.teachers.responding import Responding
from platforms.platform import get_platform

BATCH_SIZE = 1024  # queries in a call of the teacher, by default


@dataclass
class Questions:
    """What a run may ask and has asked. A question that the ledger answers counts like one that the teacher answers.

    Attributes:
        ledger_path: the file of the ledger.
        respond: the teacher.
        budget: the largest number of questions; None if there is no limit.
        batch_size: the number of queries in a call of the teacher.
        used: the questions of the run by phase; each is in one phase only.
        related: further questions whose lost answers count as those of the run: all queries of `--datagen`.
    """

    ledger_path: str
    respond: Responding
    budget: int | None = None
    batch_size: int = BATCH_SIZE
    used: dict[str, set[bytes]] = field(default_factory=dict)
    related: set[bytes] = field(default_factory=set)
    _ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger, which is read when it is first needed."""
        self._ledger = self._ledger or Ledger(self.ledger_path)
        return self._ledger

    @property
    def counts(self) -> dict[str, int]:
        """How many questions the run took in each phase, and how many were asked without an answer, if any."""
        return {phase: len(keys) for phase, keys in self.used.items()} | ({"lost": self.lost} if self.lost else {})

    @property
    def lost(self) -> int:
        """How many questions of the run were asked without an answer that was kept."""
        return self.ledger.lost(self.related.union(*self.used.values()))

    @property
    def left(self) -> int | None:
        """How many questions the budget has left; None if there is no limit."""
        return None if self.budget is None else self.budget - sum(self.counts.values())

    def ask(self, queries: np.ndarray, phase: str, occasion: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The answers to queries, as many of them, from the first, as the budget allows.

        A run that is resumed asks the same questions again; the ledger answers them.

        Args:
            queries: `[n, inputs]`, float64.
            phase: what the answers are for, such as 'training'.
            occasion: see `ledger.keys_of`.

        Returns:
            The first m queries, `[m, inputs]`, and their answers, `[m, outputs]`; `[0, 0]` if there are none.

        Raises:
            ConfigError, Stopped: see `Ledger.ask`.
        """
        keys = keys_of(queries, occasion)
        allowed = self._affordable(keys)
        queries, keys = queries[:allowed], keys[:allowed]
        known = set().union(*self.used.values())
        if new := {key for key in keys if key not in known}:
            self.used.setdefault(phase, set()).update(new)
        get_platform().on_primary(lambda: self.ledger.ask(queries, keys, phase, self.batch_size, self.respond))
        if not self.ledger.knows(keys):  # another process of the job has asked
            self.ledger.refresh()
        return queries, self.ledger.answers(keys) if keys else np.empty((0, 0))

    def ask_all(self, queries: np.ndarray, phase: str) -> np.ndarray:
        """The answers `[n, outputs]` to queries `[n, inputs]` of which the caller knows that there are at most `left`; errors as in `ask`.

        Many small calls of `ask` would count all questions of the run every time.
        """
        keys, ledger = keys_of(queries), self.ledger
        self.used.setdefault(phase, set()).update(keys)
        get_platform().on_primary(lambda: ledger.ask(queries, keys, phase, self.batch_size, self.respond))
        if not ledger.knows(keys):  # another process of the job has asked
            ledger.refresh()
        return ledger.answers(keys)

    def fetch(self, queries: np.ndarray) -> None:
        """Asks queries `[n, inputs]` that a phase will use, in this order, as far as the budget allows; errors as in `ask`."""
        keys = keys_of(queries)
        allowed = self._affordable(keys)
        ledger = self.ledger
        get_platform().on_primary(lambda: ledger.ask(queries[:allowed], keys[:allowed], "dataset", self.batch_size, self.respond))
        ledger.refresh()  # another process of the job may have asked

    def _affordable(self, keys: list[bytes]) -> int:
        """How many of some questions, from the first, the budget allows. Lost answers are an expense only where the teacher is asked."""
        if self.budget is None:
            return len(keys)
        seen, lost = set().union(*self.used.values()), self.lost
        for place, key in enumerate(keys):
            if key not in seen:
                if len(seen) + (0 if self.ledger.knows([key]) else lost) >= self.budget:
                    return place
                seen.add(key)
        return len(keys)
