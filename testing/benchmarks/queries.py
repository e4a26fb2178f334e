"""How many queries determine all weights of a network: drawn at random, or asked about what the answers leave open.

Command:  python -m testing.benchmarks.queries [NAMES, such as relu_64_16_10] [--networks 10]
Result:   five networks of each kind, one CPU core: 5-8-2 tanh is determined by 33 random queries, the least number, so that nothing is left
          to ask. 20-8-3 relu needs 260 to 4,160 random queries (median 1,040; one network more than 4,352), and 306 to 466 with questions
          (median 354): a factor of 2.9. 10 s. The first 64-16-10 relu network needs 7,744 and 818, a factor of 9.5; the other 64-16-10
          and the deep networks have not been run. The more rarely a neuron is active, the larger is the factor.
Prints:   for each kind of network the number of random queries, and of random and further queries together, that determine all weights
          of its networks: the median, the largest, and the factor between the medians.

Networks have weights of standard deviation 1 / sqrt(inputs), biases of standard deviation 1, and Gaussian queries. The networks are known
here: the search for them is left out, so that the figures tell what the answers contain and not what students make of them. 'Random' is
the smallest power of two, times the least number of queries that can suffice, at which the Jacobian has full rank. 'Asked' begins with
twice that least number, and asks like an extraction (`extraction/live/asking.py`) until nothing is open; corners of the box and
neighbours of errors count, too.

Tried and left out, because it does not pay: queries where students disagree most. Ensembles of eight students of 5-8-2 tanh networks,
fitted by Levenberg-Marquardt, four queries at a time: with queries at random one student was exact after 64 to 84 queries (students of
8 neurons; median 72) and 60 to 72 (12 neurons; median 64); with queries that gradient ascent on the variance of their outputs found, after
52 to 132 (median 70) and 72 to 96 (median 82); with the best of 200 random queries, after 72 to 104 (median 80) and 60 to 80 (median 72).
Six networks each.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from datasets.teachers.base import Teacher
from extraction.certification.determination import open_combinations
from extraction.desc import ExtractionDesc
from extraction.fitting import Fit
from extraction.live import asking
from extraction.network import Layers
from extraction.session import Session
from foundations import tables
from foundations.seeds import derive

KINDS = {
    "tanh_5_8_2": ("tanh", (5, 8, 2)),
    "relu_20_8_3": ("relu", (20, 8, 3)),
    "relu_64_16_10": ("relu", (64, 16, 10)),
    "relu_64_10_10_10_10": ("relu", (64, 10, 10, 10, 10)),
}
FIRST = 2  # queries before others are asked, as a multiple of the least number
MOST = 2**6  # random queries, as a multiple of the least number
HELD_OUT = 10


@dataclass(frozen=True)
class Known(Teacher):
    """A teacher with known layers, which is in no table."""

    layers: Layers = dataclasses.field(kw_only=True)

    @classmethod
    def recognises(cls, text: str) -> bool:
        return False

    @classmethod
    def of(cls, dataset_hparams):
        raise NotImplementedError

    @property
    def digest(self) -> str:
        return ""

    def pairs(self, dataset_hparams, train, seed):
        raise NotImplementedError

    def training_pairs(self, datagen_text):
        raise NotImplementedError

    def ask(self, queries: torch.Tensor) -> torch.Tensor:
        return self.layers.pre_activations(queries)


@dataclass(frozen=True)
class Trial:
    """A network, and what is needed to ask it."""

    layers: Layers
    seed: int
    folder: str

    @classmethod
    def draw(cls, name: str, number: int, folder: str) -> Trial:
        """The network of a kind with a number."""
        act_fun, sizes = KINDS[name]
        seed = derive(number, name)
        generator = torch.Generator().manual_seed(seed)
        shapes = [(width, inputs + 1) for inputs, width in zip(sizes, sizes[1:], strict=False)]
        vectors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for each in vectors:
            each[:, :-1] /= (each.shape[1] - 1) ** 0.5
        return cls(Layers(tuple(vectors), act_fun), seed, folder)

    @property
    def least(self) -> int:
        """The least number of queries whose answers are as many as the weights."""
        return -(-self.layers.unknowns // len(self.layers.vectors[-1]))

    def session(self, count: int) -> Session:
        """A session with so many random queries for training; a smaller number are the first of a larger one."""
        generator = torch.Generator().manual_seed(self.seed)
        sizes = self.layers.sizes
        teacher = Known("", sizes[0], sizes[-1], layers=self.layers)
        parts = [torch.randn(each, sizes[0], generator=generator, dtype=torch.float64) for each in (HELD_OUT, count)]
        test, train = (DataLoader(Dataset(part, teacher.ask(part)), 64, 1, torch.float64) for part in parts)
        desc = ExtractionDesc.default_for(f"students_mlp(2)_{'_'.join(map(str, sizes))}")
        desc.model_hparams.act_fun = self.layers.act_fun
        return Session(desc, Loaders(train, test), self.folder, verbose=False, teacher=teacher)

    def random(self) -> int | None:
        """How many random queries determine all weights; None if more than MOST times the least number are needed."""
        factor = 1
        while factor <= MOST:
            session = self.session(factor * self.least)
            network, _ = self.layers.to_network(session.students_hparams)
            if not len(open_combinations(network, session.symmetry, session.loaders.train, len(session.queries))):
                return factor * self.least
            factor *= 2
        return None

    def asked(self) -> int | None:
        """How many random and further queries determine all weights; None if no query shows what stays open."""
        session = self.session(FIRST * self.least)
        network, model_hparams = self.layers.to_network(session.students_hparams)
        state = asking.about_open(session, ([], Fit(model_hparams, network, network, self.folder)), f"{self.folder}/asked")
        is_open = len(open_combinations(state.network, session.symmetry, state.session.loaders.train, state.session.asked))
        return None if is_open else FIRST * self.least + sum(state.counts.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the networks of each kind, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=[*KINDS], help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--networks", type=int, default=10, help="of each kind; default: 10")
    args = parser.parse_args(arguments)
    body = []
    for name in args.names:
        random, asked = [], []
        for number in range(args.networks):
            with tempfile.TemporaryDirectory() as folder:
                trial = Trial.draw(name, number, folder)
                random.append(trial.random())
                asked.append(trial.asked())
                print(f"{name} network {number}: random {random[-1]}, asked {asked[-1]}", flush=True)
        body.append([name, *_figures(random), *_figures(asked), f"{_median(random) / _median(asked):.1f}"])
    print("\n".join(tables.aligned([TITLES, *body], "<" + ">" * 7)))


TITLES = ["networks", "determined by random queries", "median", "largest", "by asking", "median", "largest", "factor"]


def _median(counts: Sequence[int | None]) -> float:
    """The median; those that are not determined count as infinite."""
    return statistics.median_low([float("inf") if count is None else float(count) for count in counts])


def _figures(counts: Sequence[int | None]) -> list[str]:
    """How many are determined, the median and the largest number of queries."""
    known = [count for count in counts if count is not None]
    return [f"{len(known)} of {len(counts)}", f"{_median(counts):,.0f}", f"{max(known, default=0):,}"]


if __name__ == "__main__":
    main()
