"""What is behind a first layer that is known, by students, where derivatives do not find it.

With the first layer, the rest of a network is a smaller network of one layer less, which answers as many queries as are wanted. Students of
it are small, so that Levenberg-Marquardt trains many of them at once, with all weights: those that come nearest go on. A student at the
solution loses the neurons that it does not need, one by one, as long as a fit of the rest gives all answers. Of the first layer, rates and
biases are free, for they are known to about 1e-6 and 1e-2 only where neurons saturate.

Two things decide how many steps that takes. The output layer is eliminated (variable projection, Golub and Pereyra 1973, with the
approximation of Kaufman 1975): it is that of least squares, and steps are taken in what it cannot compensate. And the weighted sums of
queries are independent, with equal spreads, so that the outputs of the first layer fill their cube. At 11-6-6-8-2 tanh, the best of 24
students came to 6e-7 in 80 s without either, to 7e-10 with the first in 28 s, and to 1e-20 with both in 10 s.

Students of gelu, silu or softplus with two layers behind the first stop at 1e-6 to 1e-10. For these, a second layer that widens was also
found by its far kinks, as relu's (`surfaces`), up to signs, and students were given s(z) and s(-z) of each neuron. Of seven such networks
none was found, in 24 to 57 s each: one to three neurons do not show far out, and others of the same layer then compensate them.

Axes: N students, n queries, K neurons of a layer, D its inputs with the bias last, o outputs, P unknowns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.gauss_newton import polish
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.shallow import Sums, widen
from extraction.network import Layers
from models import activation_functions
from models.activation_functions import value_and_slope
from models.mlp import with_ones

WIDTHS = ((10,), (8, 8), (10, 10), (8, 8), (10, 10))  # of the layers behind the first, in turn
HEATS = ((24, 40), (6, 80), (2, 400))  # students that go on, and their steps
BREADTH = 1.2  # the standard deviation of weighted sums at the queries
EQUATIONS, MORE = 4.0, 40  # for each unknown, and so many more
UNKNOWNS = 400  # of a student, at most
SOLVED, NEARLY = 1e-14, 1e-13  # the loss of a student at the solution, and of one that lost a neuron which it did not need
DETERMINED = 1e-9  # the least singular value of a Jacobian with columns of unit length, as a share of the largest
HOPEFUL = 1e-7  # the loss after the second heat above which students are given up, and after the last below which neurons are removed
LENGTHS, BIASES = 1.5, 0.5  # of incoming weights of fresh students, whose inputs have the spread 1, and the spread of their biases
DAMPING, LESS, MORE_DAMPING, LEAST, MOST = 1e-2, 5.0, 3.0, 1e-14, 1e6
FLOOR = 1e-3  # of the damping of each unknown, as a share of their mean
REFIT = 80  # steps after a neuron is removed


@dataclass(frozen=True)
class Students:
    """Students behind a first layer whose weighted sums are known up to rates and offsets.

    Attributes:
        first: the rates and offsets, `[N, K, 2]`.
        upper: incoming vectors of the layers behind, the output layer last, `[N, K, D]` each.
        act_fun: the activation function.
    """

    first: torch.Tensor
    upper: tuple[torch.Tensor, ...]
    act_fun: str

    def some(self, which: torch.Tensor) -> Students:
        """A part of them."""
        return Students(self.first[which], tuple(each[which] for each in self.upper), self.act_fun)

    def moved(self, step: torch.Tensor) -> Students:
        """The students less a step of the unknowns before the output layer, `[N, P]`."""
        parts = [self.first, *self.upper[:-1]]
        steps = step.split([part[0].numel() for part in parts], 1)
        first, *upper = (part - change.reshape(part.shape) for part, change in zip(parts, steps, strict=True))
        return Students(first, (*upper, self.upper[-1]), self.act_fun)

    def where(self, is_better: torch.Tensor, other: Students) -> Students:
        """These where `is_better` `[N]`, elsewhere others."""
        chosen = is_better[:, None, None]
        upper = tuple(torch.where(chosen, mine, theirs) for mine, theirs in zip(self.upper, other.upper, strict=True))
        return Students(torch.where(chosen, self.first, other.first), upper, self.act_fun)

    def layers(self, number: int) -> Layers:
        """One student as a network of the weighted sums of the first layer."""
        rates, offsets = self.first[number].T
        return Layers((torch.cat([rates.diag(), offsets[:, None]], 1), *(each[number] for each in self.upper)), self.act_fun)


def recover(asked: Questions, scale: Scale, first: torch.Tensor, act_fun: str) -> Layers:
    """The network, the output layer last.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        first: the incoming vectors of its first layer, `[K, d + 1]`, nearly; K is at most d.
        act_fun: its activation function.

    Raises:
        Lacking: no student comes to the solution, or there are too many unknowns.
    """
    rows, offsets = first[:, :-1], first[:, -1]
    sums = Sums(torch.linalg.pinv(rows), rows, offsets)
    within = sums.within(asked)
    reasons = []
    for widths in WIDTHS:
        sizes = [len(rows), *widths, len(scale.spread)]
        unknowns = 2 * len(rows) + sum((before + 1) * after for before, after in zip(sizes, sizes[1:], strict=False))
        if unknowns > UNKNOWNS:
            reasons.append(f"students of widths {widths} have over {UNKNOWNS} unknowns")
            continue
        count = int(EQUATIONS * unknowns / len(scale.spread)) + MORE
        queries = BREADTH * asked.normal(count, len(rows))
        problem = Problem(queries, within(queries))
        student, loss = best(problem, fresh(problem, asked, widths, act_fun))
        if loss <= SOLVED:
            needed = _narrower(problem, asked, student)
            if needed is not None:
                return widen(asked, scale, sums, polish(needed.layers(0), problem.queries, problem.answers).layers)
        reasons.append(f"students of widths {widths} come to a loss of {loss:.0e}")
    raise Lacking(f"behind the first layer, {'; '.join(reasons)}")


@dataclass(frozen=True)
class Problem:
    """Queries by the weighted sums of the first layer.

    Attributes:
        queries: `[n, K]`.
        answers: `[n, o]`.
    """

    queries: torch.Tensor
    answers: torch.Tensor

    @property
    def scales(self) -> torch.Tensor:
        """The inverse of the spread of each output, `[o]`."""
        return 1 / self.answers.std(0).clamp_min(1e-300)


def best(problem: Problem, students: Students) -> tuple[Students, float]:
    """The best of fresh students after training, without the neurons that it does not need, and its loss.

    Surplus neurons that cancel each other may keep a student from the solution. Without one of them, it goes on.
    """
    losses = torch.full((HEATS[0][0],), torch.inf)
    winner, least = students, float("inf")
    for count, steps in HEATS:
        students = students.some(losses.sort(stable=True).indices[:count])
        students, losses = train(problem, students, steps, SOLVED)
        place = losses.argmin()
        winner, least = students.some(place[None]), float(losses[place])
        if least <= SOLVED or (count != HEATS[0][0] and least > HOPEFUL):
            break
    return minimal(problem, winner, least) if least <= HOPEFUL else (winner, least)


def _narrower(problem: Problem, asked: Questions, student: Students) -> Students | None:
    """A student at the solution all of whose weights the answers determine; None where there is none.

    Where it has surplus neurons that cannot be removed, it is a fresh one of fewer neurons.
    Pairs of gelu, silu or softplus neurons may stand for linear functions, so that no neuron can be removed alone.
    """
    if _is_determined(problem, student):
        return student
    if len(student.upper) == 2:
        for width in range(1, student.upper[0].shape[1]):
            other, loss = best(problem, fresh(problem, asked, (width,), student.act_fun))
            if loss <= SOLVED:
                return other if _is_determined(problem, other) else None
    return None


def _is_determined(problem: Problem, student: Students) -> bool:
    """Whether the answers determine all weights behind the first layer."""
    jacobian = _State.of(problem, student).jacobian[0, :, student.first[0].numel() :]
    sizes = torch.linalg.svdvals(jacobian / jacobian.norm(dim=0).clamp_min(1e-300))
    return float(sizes[-1]) > DETERMINED * float(sizes[0])


def fresh(problem: Problem, asked: Questions, widths: Sequence[int], act_fun: str) -> Students:
    """Students with random weights, and output layers of least squares."""
    count = HEATS[0][0]
    first = torch.tensor([1.0, 0.0]).to(problem.queries).expand(count, problem.queries.shape[1], 2).clone()
    activation, values = activation_functions.get(act_fun), problem.queries
    values = activation(values).expand(count, -1, -1)
    upper: list[torch.Tensor] = []
    for width in widths:
        weights = LENGTHS * torch.nn.functional.normalize(asked.normal(count, width, values.shape[2]), dim=2)
        biases = BIASES * asked.normal(count, width)
        if not upper:  # inputs of mean 0 and spread 1
            weights = weights / values.std(1, keepdim=True).clamp_min(1e-300)
            biases = biases - (weights * values.mean(1, keepdim=True)).sum(2)
        upper.append(torch.cat([weights, biases[:, :, None]], 2))
        values = activation(with_ones(values) @ upper[-1].mT)
    return Students(first, (*upper, _least_squares(with_ones(values), problem.answers.expand(count, -1, -1))), act_fun)


def train(problem: Problem, students: Students, steps: int, enough: float) -> tuple[Students, torch.Tensor]:
    """Levenberg-Marquardt with all students at once, each with a damping of its own.

    Args:
        problem: queries and answers.
        students: N of them.
        steps: at most.
        enough: a loss of any student that ends the training.

    Returns:
        The students and their losses as shares of the variance of the answers, `[N]`.
    """
    state = _State.fitted(problem, students)
    damping = torch.full_like(state.losses, DAMPING)
    for _ in range(steps):
        jacobian, residuals = state.projected * problem.scales.repeat(len(problem.queries))[:, None], state.residuals.flatten(1)
        normal = jacobian.mT @ jacobian
        diagonal = normal.diagonal(dim1=1, dim2=2)
        diagonal = damping[:, None] * (diagonal + FLOOR * diagonal.mean(1, keepdim=True))
        step = torch.linalg.solve_ex(normal + torch.diag_embed(diagonal), jacobian.mT @ residuals[:, :, None])[0][:, :, 0]
        trial = _State.fitted(problem, state.students.moved(step.nan_to_num()))
        is_better = trial.losses < state.losses
        state = trial.where(is_better, state)
        damping = torch.where(is_better, damping / LESS, damping * MORE_DAMPING).clamp(LEAST, MOST)
        if float(state.losses.min()) <= enough:
            break
    return state.students, state.losses


@dataclass(frozen=True)
class _State:
    """Students at some queries.

    Attributes:
        students: N of them.
        inputs: of each layer with the constant, `[N, n, D]`; of the first the weighted sums.
        slopes: of each hidden layer, `[N, n, K]`.
        residuals: in units of the spread of answers, `[N, n, o]`.
        losses: `[N]`.
    """

    students: Students
    inputs: tuple[torch.Tensor, ...]
    slopes: tuple[torch.Tensor, ...]
    residuals: torch.Tensor
    losses: torch.Tensor

    @classmethod
    def of(cls, problem: Problem, students: Students) -> _State:
        """Students at the queries of a problem."""
        activation = activation_functions.get(students.act_fun)
        rates, offsets = students.first.mT[:, :, None].unbind(1)  # [N, 1, K]
        values, slope = value_and_slope(activation, problem.queries * rates + offsets)
        inputs, slopes = [with_ones(values)], [slope]
        for vectors in students.upper[:-1]:
            values, slope = value_and_slope(activation, inputs[-1] @ vectors.mT)
            inputs.append(with_ones(values))
            slopes.append(slope)
        residuals = (inputs[-1] @ students.upper[-1].mT - problem.answers) * problem.scales
        losses = residuals.square().mean((1, 2)).nan_to_num(torch.inf)
        sums = problem.queries.expand(len(values), -1, -1)
        return cls(students, (sums, *inputs), tuple(slopes), residuals, losses)

    @classmethod
    def fitted(cls, problem: Problem, students: Students) -> _State:
        """Students at the queries of a problem, with output layers of least squares."""
        state = cls.of(problem, students)
        basis, triangular = torch.linalg.qr(state.inputs[-1])
        last = torch.linalg.solve_triangular(triangular, basis.mT @ problem.answers, upper=True).mT
        residuals = (state.inputs[-1] @ last.mT - problem.answers) * problem.scales
        losses = residuals.square().mean((1, 2)).nan_to_num(torch.inf)
        students = dataclasses.replace(students, upper=(*students.upper[:-1], last))
        return dataclasses.replace(state, students=students, residuals=residuals, losses=losses)

    @property
    def projected(self) -> torch.Tensor:
        """The part of the derivatives by the unknowns before the output layer that this layer cannot compensate, `[N, n o, P]`."""
        jacobian = self.jacobian[:, :, : -self.students.upper[-1][0].numel()].unflatten(1, self.residuals.shape[1:])
        columns = jacobian.flatten(2)
        basis = torch.linalg.qr(self.inputs[-1])[0]
        return (columns - basis @ (basis.mT @ columns)).reshape(jacobian.shape).flatten(1, 2)

    def where(self, is_better: torch.Tensor, other: _State) -> _State:
        """These where `is_better` `[N]`, elsewhere others."""
        chosen = is_better[:, None, None]

        def choose(mine: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            return tuple(torch.where(chosen, one, two) for one, two in zip(mine, theirs, strict=True))

        residuals = torch.where(chosen, self.residuals, other.residuals)
        losses = torch.where(is_better, self.losses, other.losses)
        students = self.students.where(is_better, other.students)
        return _State(students, choose(self.inputs, other.inputs), choose(self.slopes, other.slopes), residuals, losses)

    @property
    def jacobian(self) -> torch.Tensor:
        """The derivatives of all answers by all unknowns, `[N, n o, P]`."""
        upper, outputs = self.students.upper, self.residuals.shape[2]
        eye = torch.eye(outputs, dtype=self.residuals.dtype, device=self.residuals.device)
        back, parts = eye.expand(*self.residuals.shape, -1), []  # [N, n, o, o]
        for vectors, inputs, slopes in reversed(list(zip(upper, self.inputs[1:], self.slopes, strict=True))):
            parts.append((back[..., None] * inputs[:, :, None, None]).flatten(3))
            back = (back @ vectors[:, None, :, :-1]) * slopes[:, :, None]
        sums = self.inputs[0][:, :, None]
        parts.append(torch.stack([back * sums, back], 4).flatten(3))
        return torch.cat(parts[::-1], 3).flatten(1, 2)


def minimal(problem: Problem, student: Students, loss: float) -> tuple[Students, float]:
    """A student without the neurons that it does not need, and its loss: each removal leaves the loss at the solution, or as it was."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for depth in range(len(student.upper) - 1):
            while student.upper[depth].shape[1] > 1:
                trials, losses = train(problem, _without(problem, student, depth), REFIT, SOLVED)
                best = losses.argmin()
                if losses[best] > max(NEARLY, loss):
                    break
                student, loss, is_smaller = trials.some(best[None]), float(losses[best]), True
    return student, loss


def _without(problem: Problem, student: Students, depth: int) -> Students:
    """Copies of a student, each without one neuron of a layer behind the first, and with the next layer fitted to the others."""
    inputs = _State.of(problem, student).inputs[depth + 2][0]  # of the next layer
    count = student.upper[depth].shape[1]
    kept = [[place for place in range(count) if place != left] for left in range(count)]
    features = torch.stack([inputs[:, [*places, count]] for places in kept])
    following = _least_squares(features, (inputs @ student.upper[depth + 1][0].T).expand(count, -1, -1))
    upper = [each.expand(count, -1, -1) for each in student.upper]
    upper[depth] = torch.stack([student.upper[depth][0, places] for places in kept])
    upper[depth + 1] = following
    return dataclasses.replace(student, first=student.first.expand(count, -1, -1), upper=tuple(upper))


def _least_squares(features: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The weights `[N, o, D]` of features `[N, n, D]`."""
    return (torch.linalg.pinv(features) @ right).mT
