"""How many queries determine all weights of a network: drawn at random, or asked about what the answers leave open.

Command:  python -m testing.benchmarks.queries [NAMES, such as relu_64_16_10] [--networks 10] [--picture PATH]
Result:   five networks of each kind, one CPU core, 100 s for all (n=1). 5-8-2 tanh is determined by 33 random queries, the least number, so
          that nothing is left to ask. 20-8-3 relu needs 260 to 4,160 random queries (median 1,040; one network more than 4,352), and 306
          to 466 with questions (median 354): a factor of 2.9. 64-16-10 relu needs 242 to 7,744 (median 1,936), and 242 to 946 (median
          818): a factor of 2.4, and of 9.5 for the network that needs most. The more rarely a neuron is active, the larger is the factor.
          Of the questions, half come after all weights are determined (`.github/queries.png`): they look for further neurons. The deep
          networks have not been run.
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
from collections.abc import Mapping, Sequence
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
from training.plotting import drawing, figure, save

KINDS = {
    "tanh_5_8_2": ("tanh", (5, 8, 2)),
    "relu_20_8_3": ("relu", (20, 8, 3)),
    "relu_64_16_10": ("relu", (64, 16, 10)),
    "relu_64_10_10_10_10": ("relu", (64, 10, 10, 10, 10)),
}
FIRST = 2  # queries before others are asked, as a multiple of the least number
MOST = 2**6  # random queries, as a multiple of the least number
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the further queries, at which the curve has its places
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
class Curve:
    """How many weights are open after so many queries: places in the order of the queries."""

    queries: list[int] = dataclasses.field(default_factory=list)
    left: list[int] = dataclasses.field(default_factory=list)

    def add(self, queries: int, left: int) -> None:
        """Adds a place."""
        self.queries.append(queries)
        self.left.append(left)

    @property
    def ends(self) -> int | None:
        """The number of queries at the end of the curve; None if these leave weights open."""
        return self.queries[-1] if self.queries and not self.left[-1] else None


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

    def random(self) -> Curve:
        """What more and more random queries leave open, from half of the least number up to MOST times as many."""
        curve, factor = Curve(), 0.5
        while factor <= MOST and not curve.ends:
            session = self.session(int(factor * self.least))
            network, _ = self.layers.to_network(session.students_hparams)
            curve.add(
                int(factor * self.least), len(open_combinations(network, session.symmetry, session.loaders.train, len(session.queries)))
            )
            factor *= 2
        return curve

    def asked(self) -> Curve:
        """What a few random queries leave open, and what further queries leave."""
        session = self.session(FIRST * self.least)
        network, model_hparams = self.layers.to_network(session.students_hparams)
        state = asking.about_open(session, ([], Fit(model_hparams, network, network, self.folder)), f"{self.folder}/asked")
        train, curve = state.session.loaders.train, Curve()
        further, counted = len(train.examples) - FIRST * self.least, sum(state.counts.values())
        for share in SHARES if further else (0.0,):
            count = FIRST * self.least + round(share * further)
            pairs = Dataset(train.examples[:count], train.labels[:count])
            part = DataLoader(pairs, 64, 1, torch.float64)
            left = len(open_combinations(state.network, session.symmetry, part, min(count, state.session.asked)))
            curve.add(FIRST * self.least + round(share * counted), left)
        return curve


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the networks of each kind, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=[*KINDS], help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--networks", type=int, default=10, help="of each kind; default: 10")
    parser.add_argument("--picture", help="where to draw the weights left open against the queries, such as .github/queries.png")
    args = parser.parse_args(arguments)
    body, curves = [], {}
    for name in args.names:
        curves[name] = []
        for number in range(args.networks):
            with tempfile.TemporaryDirectory() as folder:
                trial = Trial.draw(name, number, folder)
                curves[name].append((trial.random(), trial.asked()))
                print(f"{name} network {number}: random {curves[name][-1][0].ends}, asked {curves[name][-1][1].ends}", flush=True)
        random, asked = ([curve.ends for curve in each] for each in zip(*curves[name], strict=True))
        body.append([name, *_figures(random), *_figures(asked), f"{_median(random) / _median(asked):.1f}"])
    print("\n".join(tables.aligned([TITLES, *body], "<" + ">" * 7)))
    if args.picture:
        draw(curves, args.picture)


@drawing()
def draw(curves: Mapping[str, Sequence[tuple[Curve, Curve]]], path: str) -> None:
    """Draws the weights that queries leave open, a panel for each kind of network and a line for each network."""
    chart, axes = figure(columns=len(curves), width=4.2, height=3.4)
    for axis, (name, pairs) in zip(axes, curves.items(), strict=True):
        for number, pair in enumerate(pairs):
            for curve, label, colour in zip(
                pair, ("random queries", "further queries that are asked"), ("tab:blue", "tab:orange"), strict=True
            ):
                options = {"color": colour, "marker": ".", "linewidth": 1, "label": None if number else label}
                axis.plot(curve.queries, curve.left, alpha=0.7, **options)
        axis.set(xscale="log", xlabel="queries", ylabel="weights left open", title=name.replace("_", " ", 1).replace("_", "-"))
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=-0.15)
    axes[0].legend(fontsize=8)
    save(chart, path)


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
