"""The rows of a user's file of answers, some of which are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from datasets.teachers.links import Errors
from extraction.preparation.scaling import Scaling

SHOWN = 10  # rows in a message


@dataclass(frozen=True)
class Rows:
    """All queries and answers of a file, and the rows that are left out.

    Attributes:
        loaders: all rows, for training and for test.
        numbers: the numbers of these rows in the user's file, counted from 0, for training and for test.
        left_out: the numbers of the rows that are left out.
        errors: of logits that were converted from probabilities with few digits.
    """

    loaders: Loaders
    numbers: tuple[torch.Tensor, torch.Tensor]
    left_out: frozenset[int] = frozenset()
    errors: Errors | None = None

    @classmethod
    def of(cls, loaders: Loaders) -> Rows:
        """The rows of a dataset that was read from a file."""
        train, test = (loader.dataset for loader in loaders)
        assert isinstance(train, Dataset) and isinstance(test, Dataset) and train.rows is not None and test.rows is not None
        return cls(loaders, (train.rows, test.rows), errors=train.errors)

    def __len__(self) -> int:
        """The number of rows, those that are left out included."""
        return sum(map(len, self.numbers))

    def without(self, numbers: Iterable[int]) -> Rows:
        """The same rows with these left out, and no others."""
        return dataclasses.replace(self, left_out=frozenset(numbers))

    def changed(self, change: Callable[[DataLoader], DataLoader]) -> Rows:
        """The same rows in changed loaders."""
        return dataclasses.replace(self, loaders=Loaders(*map(change, self.loaders)))

    def without_rare(self, scaling: Scaling | None) -> Rows:
        """The rows without those that differ from the others in a column that varies in too few rows."""
        if scaling is None:
            return self
        usual = [~scaling.inputs.is_rare(loader.dataset.examples) for loader in self.loaders]
        loaders = Loaders(*(loader.selected(rows) for loader, rows in zip(self.loaders, usual, strict=True)))
        train, test = (numbers[rows] for numbers, rows in zip(self.numbers, usual, strict=True))
        return dataclasses.replace(self, loaders=loaders, numbers=(train, test))

    def scaled(self, scaling: Scaling | None) -> Rows:
        """The rows after a scaling; rows for test that it leaves out are no longer among them."""
        if scaling is None:
            return self
        loaders, (train, test) = scaling.apply(self.loaders), self.numbers
        if len(loaders.test.labels) < len(test):
            test = test[~scaling.inputs.leaves(self.loaders.test.dataset.examples)]
        return dataclasses.replace(self, loaders=loaders, numbers=(train, test))

    def with_order(self, order: torch.Tensor) -> Rows:
        """The same rows with those for training that are kept in an order of their places, `[kept]`, after those that are left out."""
        out = self.out[0]
        return self.placed(torch.cat([out.nonzero()[:, 0], (~out).nonzero()[:, 0][order.to(out.device)]]))

    def placed(self, places: torch.Tensor) -> Rows:
        """The same rows with all those for training in an order of their places, `[Q]`."""
        (train, test), (numbers, others) = self.loaders, self.numbers
        return dataclasses.replace(self, loaders=Loaders(train.at(places), test), numbers=(numbers[places.to(numbers.device)], others))

    @property
    def kept(self) -> Loaders:
        """The rows that are not left out."""
        return Loaders(*(loader.selected(~self._is_out(numbers)) for loader, numbers in zip(self.loaders, self.numbers, strict=True)))

    @property
    def out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which rows for training and for test are left out."""
        train, test = map(self._is_out, self.numbers)
        return train, test

    def _is_out(self, numbers: torch.Tensor) -> torch.Tensor:
        return torch.isin(numbers, torch.tensor(sorted(self.left_out), dtype=numbers.dtype, device=numbers.device))


def named(numbers: Sequence[int]) -> str:
    """The numbers of rows as text."""
    shown = [str(number) for number in sorted(numbers)[:SHOWN]]
    if len(numbers) > SHOWN:
        return f"{len(numbers)} rows ({', '.join(shown)}, ...)"
    return f"row {shown[0]}" if len(shown) == 1 else f"rows {', '.join(shown[:-1])} and {shown[-1]}"


def with_pairs(loader: DataLoader, queries: torch.Tensor, answers: torch.Tensor) -> DataLoader:
    """A loader with further queries and answers at its end."""
    if not len(queries):
        return loader
    dataset = type(loader.dataset)(torch.cat([loader.examples, queries]), torch.cat([loader.labels, answers]))
    return DataLoader(dataset, loader.batch_size, loader.seed, torch.float64)


def joined(loaders: Loaders, pairs: tuple[torch.Tensor, torch.Tensor], is_test: torch.Tensor) -> Loaders:
    """Loaders with further queries and answers, for test where `is_test` `[n]` says so."""
    queries, answers = pairs
    chosen = (~is_test, is_test)
    return Loaders(*(with_pairs(loader, queries[part], answers[part]) for loader, part in zip(loaders, chosen, strict=True)))


def extended(rows: Rows, pairs: tuple[torch.Tensor, torch.Tensor], is_test: torch.Tensor) -> Rows:
    """Rows with further ones, which have the next numbers; the arguments are those of `joined`."""
    numbers = 1 + torch.cat(rows.numbers).max() + torch.arange(len(is_test)).to(rows.numbers[0])
    train, test = rows.numbers
    chosen = is_test.to(numbers.device)
    both = torch.cat([train, numbers[~chosen]]), torch.cat([test, numbers[chosen]])
    return dataclasses.replace(rows, loaders=joined(rows.loaders, pairs, is_test), numbers=both)
