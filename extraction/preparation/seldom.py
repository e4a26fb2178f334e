"""Weights from columns that vary in few queries: found when the rest of the network is known, from the queries that were left out for them.

Students see a column that is 0 in 99 of 100 queries as an outlier, and explain it by neurons of its own. So such columns are left out with
the queries that differ in them (`coordinates.rare_columns`). Once the network of the other columns is found, a query that differs in one
such column gives as many equations as there are outputs, for the weights from that column alone: one for each neuron of the first layer.
Where there are twice as many equations as weights, and some weights meet all of them, the column comes back with its queries.

Axes: n queries that differ in a column, K neurons of the first layer, O outputs, S starts.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from extraction.fitting import fit
from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.outliers import limits
from extraction.preparation.rows import Rows
from extraction.refinement.selection import Candidate
from extraction.session import Session
from foundations.errors import ConfigError
from foundations.seeds import derive

TOLD = 0.1  # the largest error of a weight, as a share of the largest from its column, that a column may have which comes back
HALVES, SPARE = 2, 1  # of the equations, because a rival is fitted to one; equations more than weights in each, at least
EQUATIONS = 10  # for each weight, at most
STARTS = (32, 224)  # of which all climb together, one group after the other
SIZES = (0.1, 30.0)  # the range of the first changes of weighted sums by the column
STEPS = 100  # of Levenberg-Marquardt
FLAT = 1e-8  # a weight that changes the answers by a smaller share of the largest change hardly moves
DAMPING, EASED, DAMPED = 1e-2, 0.2, 5.0  # the first one, and its factors after a step that helps and one that does not


def restored(session: Session, best: Candidate, location: str) -> tuple[Session, Candidate]:
    """The extraction and the network with the columns that come back.

    Args:
        session: the extraction, without columns that vary in few queries.
        best: the network that was found.
        location: the path that the folder of the fit begins with.

    Returns:
        Both as they are where no column comes back.
    """
    every, scaling, (recovered, fitted) = session.every_row, session.scaling, best
    if every is None or scaling is None or session.own_rows is None:
        return session, best
    limit = limits(session, fitted.network)
    if limit is None:
        return session, best
    every = every.without(session.own_rows.left_out)
    found = _weights(session, Layers.of(fitted.network), every, limit)
    if not found:
        return session, best
    columns = ", ".join(map(str, sorted(found)))
    session.say(f"The queries that were left out tell the weights from column{'s' if len(found) > 1 else ''} {columns} of X")
    wider = _with_columns(session, every, [*found])
    inputs = scaling.inputs, wider.scaling.inputs if wider.scaling else scaling.inputs
    before, _ = _over(Layers.of(fitted.before), *inputs, {}).to_network(wider.students_hparams)
    layers = _over(Layers.of(fitted.network), *inputs, found)
    try:
        refitted = fit(wider, layers, f"{location}_seldom", None)
    except ConfigError:  # more unknowns than answers, or a divergence
        return session, best
    if limits(wider, refitted.network) is None:
        return session, best
    return wider, (recovered, dataclasses.replace(refitted, before=before))


def _weights(session: Session, layers: Layers, every: Rows, limit: torch.Tensor) -> dict[int, torch.Tensor]:
    """The weights from each column that comes back, `[K]`, by its number.

    Args:
        session: the extraction.
        layers: of the network without these columns, for the inputs and outputs after scaling.
        every: all rows that count.
        limit: the largest error of an answer, `[O]`.
    """
    assert session.scaling is not None
    inputs, outputs = session.scaling.inputs, session.scaling.outputs
    queries, answers = every.kept.train.examples, every.kept.train.labels
    differs, found = inputs.differs(queries) & (inputs.rare > 0), {}
    for column in sorted(inputs.too_rare, key=lambda column: -int(inputs.rare[column])):
        others = differs.clone()
        others[:, [column, *found]] = False
        rows = differs[:, column] & ~others.any(1)
        steps = queries[rows, column] - inputs.mean[column]
        if len(steps) * answers.shape[1] < HALVES * (layers.sizes[1] + SPARE):
            continue
        first = layers.vectors[0]
        sums = layers.replace(first).pre_activations(inputs.apply(queries[rows]))
        for known, weights in found.items():
            sums = sums + (queries[rows, known] - inputs.mean[known])[:, None] * weights
        size = steps.abs().max()
        problem = _Column(layers.replace(*layers.vectors[1:]), sums, steps / size, outputs.apply(answers[rows]), limit)
        weights = problem.solved(derive(session.seed, "seldom", column))
        if weights is not None:
            found[column] = weights / size
    return found


@dataclasses.dataclass(frozen=True)
class _Column:
    """The weights from a column as unknowns.

    Attributes:
        above: the layers above the first.
        sums: the weighted sums of the first layer without the column, `[n, K]`.
        steps: by how much the column differs from its usual value, `[n]`; the largest is 1.
        answers: `[n, O]`.
        limit: the largest error of an answer, `[O]`.
    """

    above: Layers
    sums: torch.Tensor
    steps: torch.Tensor
    answers: torch.Tensor
    limit: torch.Tensor

    def errors(self, weights: torch.Tensor) -> torch.Tensor:
        """The errors of the answers over their limits for weights `[K]`, `[n O]`."""
        activations = self.above.activation(self.sums + self.steps[:, None] * weights)
        return ((self.above.pre_activations(activations) - self.answers) / self.limit).flatten()

    def solved(self, seed: int) -> torch.Tensor | None:
        """The weights that give all answers, `[K]`; None where no start leads to such weights, or where the answers do not tell them."""
        most = -(-EQUATIONS * self.sums.shape[1] // self.answers.shape[1])
        some = torch.linspace(0, len(self.steps) - 1, min(most, len(self.steps))).long().to(self.sums.device)
        few = dataclasses.replace(self, sums=self.sums[some], steps=self.steps[some], answers=self.answers[some])
        generator = torch.Generator().manual_seed(seed)
        for number, count in enumerate(STARTS):
            starts = self._starts(count, generator)
            if number == 0:
                starts[0] = 0.0
            weights, losses = few.climbed(starts)
            best = weights[losses.argmin()]
            if bool((self.errors(best).abs() <= 1).all()):
                return best if self.tells(best) else None
        return None

    def tells(self, weights: torch.Tensor) -> bool:
        """Whether the answers tell weights `[K]`: with a neuron that is flat for all queries they do not."""
        slopes = torch.func.jacfwd(self.errors)(weights)
        _, sizes, directions = torch.linalg.svd(slopes, full_matrices=False)
        errors = (directions / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)[:, None]).norm(dim=0)
        return bool((errors <= TOLD * weights.abs().max()).all())

    def _starts(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random weights of different sizes, `[S, K]`."""
        low, high = map(math.log, SIZES)
        sizes = (low + (high - low) * torch.rand(count, 1, generator=generator, dtype=torch.float64)).exp()
        directions = torch.randn(count, self.sums.shape[1], generator=generator, dtype=torch.float64)
        return (sizes * torch.nn.functional.normalize(directions, dim=1)).to(self.sums)

    def climbed(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights `[S, K]` after steps of Levenberg-Marquardt from each start, and the losses, `[S]`."""
        errors, jacobian = torch.func.vmap(self.errors), torch.func.vmap(torch.func.jacfwd(self.errors))
        damping = torch.full_like(weights[:, 0], DAMPING)
        missing = errors(weights)
        losses = missing.square().mean(1)
        tiny = torch.finfo(losses.dtype).tiny
        for _ in range(STEPS):
            slopes = jacobian(weights)
            lengths = slopes.norm(dim=1)
            lengths = torch.maximum(lengths, FLAT * lengths.amax(1, keepdim=True)).clamp_min(tiny**0.25)
            unit = slopes / lengths[:, None, :]
            curvature = unit.transpose(1, 2) @ unit + damping[:, None, None] * torch.eye(weights.shape[1]).to(unit)
            moves = torch.linalg.solve(curvature, (unit * missing[:, :, None]).sum(1)) / lengths
            trial = weights - moves
            after = errors(trial)
            lower = after.square().mean(1) < losses
            weights = torch.where(lower[:, None], trial, weights)
            missing = torch.where(lower[:, None], after, missing)
            losses = missing.square().mean(1)
            damping = (damping * torch.where(lower, EASED, DAMPED)).clamp(1e-15, 1e10)
            if bool((losses <= 1e-4).any()):
                break
        return weights, losses


def _with_columns(session: Session, every: Rows, columns: list[int]) -> Session:
    """The session with more columns, and with the queries that differ in them, the last ones: these few are always examined."""
    assert session.scaling is not None
    inputs = session.scaling.inputs.with_rare(columns, every.kept.train.examples)
    scaling = dataclasses.replace(session.scaling, inputs=inputs)
    last = session.scaling.inputs.is_rare(every.loaders.train.examples)
    own = every.placed(torch.argsort(last.int(), stable=True)).without_rare(scaling)
    wider = dataclasses.replace(session, scaling=scaling).of_file(own, own.scaled(scaling), every)
    asked = int(session.scaling.inputs.is_rare(own.kept.train.examples).sum())
    return dataclasses.replace(wider.with_precision(), asked=asked)


def _over(layers: Layers, before: Coordinates, after: Coordinates, found: dict[int, torch.Tensor]) -> Layers:
    """The layers of a network for other coordinates of the inputs, with the weights `[K]` from more columns."""
    first, *rest = layers.vectors
    first = before.fold_inputs(first)
    for column, weights in found.items():
        first[:, column] += weights
        first[:, -1] -= weights * before.mean[column]
    return layers.replace(after.unfold_inputs(first), *rest)
