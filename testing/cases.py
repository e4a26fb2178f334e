"""Files of answers as people have them, each with the network behind it and what an extraction must say of it.

Axes: Q queries, K neurons of a layer, D inputs of a layer with the bias last, O outputs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from extraction.network import Layers
from foundations.seeds import derive
from testing import planted

EXACT, PRECISE, BUT_FOR, NOT = "exactly", "to the precision of the answers", "but for", "not"  # the grades of a verdict
LENGTH = 1.5  # of the incoming weights of planted neurons
WIDER = 4  # times as wide are the students, unless a case says otherwise


@dataclass(frozen=True)
class Case:
    """Queries and answers, and what must come out.

    Attributes:
        layers: the network behind the answers; of probabilities, the one whose logits have mean zero.
        queries: `[Q, inputs]`, in the number format of the file.
        answers: `[Q, O]`, likewise.
        grades: the grades that are right.
        error: the largest relative error of a weight; None where widths may differ.
        lines: patterns of what must be said with the verdict or before it.
        unless_exact: whether these lines are not needed where the network is identified exactly.
        missing: how many neurons of the first layer may be missing.
        noise: the standard deviation of the errors of the answers that must be found, in the unit of the answers.
        students: the widths of the students' hidden layers; WIDER times those of the network where left out.
        decimals: of answers that are written to a table rather than to an archive.
    """

    layers: Layers
    queries: torch.Tensor
    answers: torch.Tensor
    grades: Sequence[str] = (EXACT,)
    error: float | None = 1e-9
    lines: Sequence[str] = ()
    unless_exact: bool = False
    missing: int = 0
    noise: float | None = None
    students: Sequence[int] | None = None
    decimals: int | None = None

    @property
    def students_name(self) -> str:
        """The name of the students as a model."""
        inputs, *hidden, outputs = self.layers.sizes
        widths = self.students or [WIDER * width for width in hidden]
        return f"students_mlp(10)_{'_'.join(map(str, [inputs, *widths, outputs]))}"

    def write(self, folder: str) -> list[str]:
        """Writes the file; returns the arguments of `extract` that name it."""
        x, y = self.queries.numpy(), self.answers.numpy()
        if self.decimals is None:
            path = os.path.join(folder, "answers.npz")
            np.savez(path, X=x, y=y)
            return ["--teacher_name", path]
        path = os.path.join(folder, "answers.csv")
        formats = ["%.17g"] * x.shape[1] + [f"%.{self.decimals}f"] * y.shape[1]
        names = [f"x{column}" for column in range(x.shape[1])] + [f"y{column}" for column in range(y.shape[1])]
        np.savetxt(path, np.concatenate([x, y], 1), formats, delimiter=",", header=",".join(names), comments="")
        return ["--teacher_name", path, "--outputs", str(y.shape[1])]


class Draw:
    """The random numbers of a case."""

    def __init__(self, name: str, number: int):
        self.generator = torch.Generator().manual_seed(derive(number, "case", name))

    def normal(self, *shape: int) -> torch.Tensor:
        """Gaussian numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def plain(self, sizes: Sequence[int], act_fun: str = "tanh", queries: int = 2000) -> Case:
        """A network, standard Gaussian queries and their answers, about which nothing is unusual."""
        x = self.normal(queries, sizes[0])
        return answered(planted.draw(sizes, act_fun, x, self.generator, LENGTH), x)


def answered(layers: Layers, queries: torch.Tensor) -> Case:
    """A network with its answers to some queries."""
    return Case(layers, queries, layers.pre_activations(queries))


def single_precision(draw: Draw) -> Case:
    """A network that computes in float32."""
    case = draw.plain([4, 7, 2])
    low, x = case.layers.replace(*(vectors.float() for vectors in case.layers.vectors)), case.queries.float()
    layers = case.layers.replace(*(vectors.double() for vectors in low.vectors))
    return Case(layers, x, low.pre_activations(x), (PRECISE,), 2e-6)


def decimals(draw: Draw) -> Case:
    """A table with a header, whose answers have four decimals."""
    case = draw.plain([5, 6, 3], "relu")
    return dataclasses.replace(case, answers=case.answers.round(decimals=4), decimals=4, grades=(PRECISE,), error=1e-4)


def noise(draw: Draw) -> Case:
    """Noisy answers, and many of them."""
    case, size = draw.plain([4, 6, 2], queries=15000), 1e-3
    return dataclasses.replace(
        case, answers=case.answers + size * draw.normal(*case.answers.shape), grades=(PRECISE,), error=2e-3, noise=size
    )


def far_columns(draw: Draw) -> Case:
    """Columns far from zero."""
    case = draw.plain([4, 7, 2])
    return _moved(case, torch.tensor([0.0, -300.0, 40.0, 0.0]), torch.ones(4))


def column_scales(draw: Draw) -> Case:
    """Columns of very different scales."""
    return _moved(draw.plain([5, 7, 2], "gelu"), torch.zeros(5), torch.tensor([1.0, 1e-4, 1e3, 5.0, 1.0]))


def far_outputs(draw: Draw) -> Case:
    """Answers far from zero, which costs three of their digits."""
    case = draw.plain([4, 7, 2])
    *hidden, last = case.layers.vectors
    return answered(case.layers.replace(*hidden, last + torch.cat([0 * last[:, 1:], torch.tensor([[500.0], [-2000.0]])], 1)), case.queries)


def output_scales(draw: Draw) -> Case:
    """Outputs of very different scales."""
    return _with_outputs(draw.plain([4, 7, 3]), [1e5, 1.0, 1e-3])


def weak_output(draw: Draw) -> Case:
    """Outputs that differ by 1e12 in scale, and neurons that only the weak output sees."""
    case = draw.plain([4, 6, 2], queries=3000)
    *hidden, last = case.layers.vectors
    last[0, 3:6], last[1, :3] = 0, 0
    case = _with_outputs(answered(case.layers.replace(*hidden, last), case.queries), [1.0, 1e-12])
    return dataclasses.replace(case, grades=(EXACT, PRECISE, BUT_FOR, NOT), missing=6)


def correlated(draw: Draw) -> Case:
    """Columns that are sums of the same few numbers: neighbours have correlations of up to 0.98."""
    common = draw.normal(2000, 1)
    x = common + 0.15 * draw.normal(2000, 5)
    return dataclasses.replace(answered(planted.draw([5, 7, 2], "tanh", x, draw.generator, LENGTH), x), error=1e-8)


def flat_directions(draw: Draw) -> Case:
    """Seven columns that are mixtures of four."""
    x = draw.normal(2000, 4) @ draw.normal(4, 7)
    case = answered(planted.draw([7, 7, 2], "tanh", x, draw.generator, LENGTH), x)
    return dataclasses.replace(case, grades=(BUT_FOR,), lines=["4 of the 7 directions"])


def seldom_column(draw: Draw) -> Case:
    """A column that is 0 but in one query of a hundred, with large weights."""
    case = draw.plain([5, 6, 2])
    x, (first, *rest) = case.queries, case.layers.vectors
    x[:, 2] *= (draw.normal(len(x)) > 2.3).double()
    first[:, 2] *= 5
    return dataclasses.replace(answered(case.layers.replace(first, *rest), x), grades=(EXACT, BUT_FOR))


def categories(draw: Draw) -> Case:
    """Four columns of 0 and 1 for a category, which sum to one, and one of which is rare."""
    kinds = torch.multinomial(torch.tensor([0.6, 0.3, 0.08, 0.02]), 2000, True, generator=draw.generator)
    x = torch.cat([draw.normal(2000, 3), torch.eye(4, dtype=torch.float64)[kinds]], 1)
    case = answered(planted.draw([7, 6, 2], "tanh", x, draw.generator, LENGTH), x)
    return dataclasses.replace(case, grades=(BUT_FOR,), lines=["6 of the 7 directions"])


def missing_values(draw: Draw) -> Case:
    """A code for missing values in one column, which the network did not see."""
    case = draw.plain([4, 6, 2])
    x, rows = case.queries.clone(), draw.normal(2000) > 1.8
    x[rows, 1] = 0.0
    case = answered(case.layers, x)
    x = x.clone()
    x[rows, 1] = -999
    return dataclasses.replace(case, queries=x, lines=["-999 in column 1 of X is a code for a missing value"])


def dates(draw: Draw) -> Case:
    """Days and seconds since 1970, as whole numbers."""
    case = draw.plain([4, 6, 2])
    mean, spread = torch.tensor([19000.0, 1.6e9, 0, 0]).double(), torch.tensor([700.0, 6e7, 1, 1]).double()
    x = torch.cat([(mean + spread * case.queries)[:, :2].round(), case.queries[:, 2:]], 1)
    return dataclasses.replace(answered(planted.over_inputs(case.layers, mean, spread), x), error=1e-8)


def dependent_outputs(draw: Draw) -> Case:
    """Outputs of which one is constant, one nearly a copy of another, and one a mixture of these."""
    case = draw.plain([4, 6, 3])
    *hidden, last = case.layers.vectors
    near, constant = last[:1] + 1e-3 * last[1:2], torch.cat([0 * last[:1, :-1], torch.full((1, 1), 3.0).double()], 1)
    return answered(case.layers.replace(*hidden, torch.cat([last[:1], near, 2 * last[:1] - near, constant])), case.queries)


def images(draw: Draw) -> Case:
    """Pixels from 0 to 1, some of which are constant."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data) / 16
    case = answered(planted.draw([64, 8, 4], "tanh", x, draw.generator, 3.0), x)
    return dataclasses.replace(case, grades=(EXACT, BUT_FOR), lines=["constant and left out"])


def never_switches(draw: Draw) -> Case:
    """A relu neuron that is active for all queries, so that it is a linear map."""
    case = draw.plain([4, 7, 2], "relu")
    first, *rest = case.layers.vectors
    first[0, -1] += 40
    case = answered(case.layers.replace(first, *rest), case.queries)
    return dataclasses.replace(case, grades=(EXACT, PRECISE, BUT_FOR), error=None, missing=1, lines=["linear (map|term)", "more widely"])


def skip_connection(draw: Draw) -> Case:
    """A linear map of the inputs beside the hidden layer."""
    case = draw.plain([4, 7, 2])
    answers = case.answers + case.queries @ draw.normal(4, 2)
    lines = ["skip|linear (map|term)"]
    return dataclasses.replace(case, answers=answers, grades=(EXACT, NOT), error=None, missing=7, lines=lines)


def probabilities(draw: Draw) -> Case:
    """Softmax probabilities."""
    case = draw.plain([4, 6, 4])
    lines = ["softmax", "added to all logits"]
    return dataclasses.replace(
        case, layers=planted.centred(case.layers), answers=case.answers.softmax(1), grades=(EXACT, PRECISE), error=1e-8, lines=lines
    )


def one_probability(draw: Draw) -> Case:
    """The probability of a sigmoid."""
    case = _with_outputs(draw.plain([4, 6, 1]), [4.0])
    return dataclasses.replace(case, answers=case.answers.sigmoid(), grades=(EXACT, PRECISE), error=1e-8, lines=["sigmoid"])


def predict_proba(draw: Draw) -> Case:
    """What `predict_proba` of a classifier of scikit-learn gives."""
    from sklearn.neural_network import MLPClassifier

    x = draw.normal(1500, 4)
    classes = (x[:, :2].square().sum(1) > 1.5).int() + (x[:, 2] * x[:, 3] > 0.5).int()
    model = MLPClassifier(hidden_layer_sizes=(6,), activation="tanh", alpha=1e-2, max_iter=400, random_state=0).fit(
        x.numpy(), classes.numpy()
    )
    case = Case(planted.centred(_of_sklearn(model, "tanh")), x, torch.from_numpy(model.predict_proba(x.numpy())))
    return dataclasses.replace(case, grades=(EXACT, PRECISE), error=1e-6, lines=["softmax"])


def sklearn_regressor(draw: Draw) -> Case:
    """A small regression of scikit-learn, with as few rows as people have."""
    from sklearn.datasets import make_friedman1
    from sklearn.neural_network import MLPRegressor

    inputs, targets = make_friedman1(400, 6, noise=0.5, random_state=0)
    targets = (targets - targets.mean()) / targets.std()
    model = MLPRegressor(hidden_layer_sizes=(7,), alpha=1e-3, max_iter=3000, random_state=0).fit(inputs, targets)
    case = answered(_of_sklearn(model, "relu"), torch.from_numpy(inputs))
    sums = case.layers.replace(case.layers.vectors[0]).pre_activations(case.queries)
    fixed = int(((sums > 0).all(0) | (sums < 0).all(0)).sum())  # units that never switch
    return dataclasses.replace(case, grades=(EXACT, PRECISE, BUT_FOR), error=None, missing=fixed)


def outliers(draw: Draw) -> Case:
    """Three rows that are wrong."""
    case = draw.plain([4, 7, 2])
    rows, answers = [17, 777, 1500], case.answers.clone()
    answers[rows] += torch.tensor([[4.0, 0.0], [-3.0, 2.0], [0.0, 6.0]])
    return dataclasses.replace(case, answers=answers, lines=[rf"\b{row:,}\b|\b{row}\b" for row in rows])


def few_queries(draw: Draw) -> Case:
    """So few queries that students agree with them and miss others."""
    case = draw.plain([4, 10, 2], queries=66)
    lines = ["too few", r"for \d+ unknowns", "held-out"]
    return dataclasses.replace(case, grades=(NOT,), error=None, missing=10, lines=lines)


def one_short(draw: Draw) -> Case:
    """So many neurons that students share all but one or two."""
    return dataclasses.replace(draw.plain([9, 36, 3], queries=8000), students=[44])


def too_narrow(draw: Draw) -> Case:
    """Students with fewer neurons than the network."""
    case = draw.plain([9, 36, 3], queries=8000)
    lines = ["too narrow", r"students_mlp\(10\)_9_\d\d+_3"]
    return dataclasses.replace(case, students=[28], grades=(EXACT, NOT), error=None, missing=36, lines=lines, unless_exact=True)


def wide_then_narrow(draw: Draw) -> Case:
    """A hidden layer that is much wider than the next one."""
    return dataclasses.replace(draw.plain([5, 16, 3, 2], queries=12000), students=[48, 9], error=1e-6)


def wrong_activation(draw: Draw) -> Case:
    """Students with another activation function than the network."""
    case = draw.plain([4, 7, 2], "gelu")
    layers = dataclasses.replace(case.layers, act_fun="tanh")
    return dataclasses.replace(case, layers=layers, grades=(NOT,), error=None, missing=7, lines=["--act_fun"])


CASES: Mapping[str, Callable[[Draw], Case]] = {
    make.__name__: make
    for make in (
        single_precision,
        decimals,
        noise,
        far_columns,
        column_scales,
        far_outputs,
        output_scales,
        weak_output,
        correlated,
        flat_directions,
        seldom_column,
        categories,
        missing_values,
        dates,
        dependent_outputs,
        images,
        never_switches,
        skip_connection,
        probabilities,
        one_probability,
        predict_proba,
        sklearn_regressor,
        outliers,
        few_queries,
        one_short,
        too_narrow,
        wide_then_narrow,
        wrong_activation,
    )
}


def make(name: str, number: int = 0) -> Case:
    """The case with a name; other numbers have other networks and queries of the same kind."""
    return CASES[name](Draw(name, number))


def _moved(case: Case, mean: torch.Tensor, spread: torch.Tensor) -> Case:
    """The case with the columns of its queries moved and scaled, and the same answers."""
    layers = planted.over_inputs(case.layers, mean.double(), spread.double())
    return dataclasses.replace(case, layers=layers, queries=mean + spread * case.queries)


def _with_outputs(case: Case, scales: Sequence[float]) -> Case:
    """The case with its outputs scaled."""
    *hidden, last = case.layers.vectors
    return answered(case.layers.replace(*hidden, last * torch.tensor(scales, dtype=torch.float64)[:, None]), case.queries)


def _of_sklearn(model: object, act_fun: str) -> Layers:
    """The layers of a network of scikit-learn."""
    pairs = zip(model.coefs_, model.intercepts_, strict=True)  # type: ignore[attr-defined]
    return Layers(tuple(torch.from_numpy(np.concatenate([weights.T, bias[:, None]], 1)) for weights, bias in pairs), act_fun)
