"""The activation function along directions that move one neuron of a layer alone, and its name.

Along such a direction the answers are `c + v s(k t + b)`, with an output vector v: the activation function itself, up to scales.
Differences of answers have rank one, which shows that the neuron is alone. The candidates are fitted to all profiles, and that with the
least error is the activation function, if the second is clearly worse. tanh and sigmoid are the same function up to scales and constants,
so that no answers tell them apart. A layer whose profiles fit no candidate has an unknown activation function, of which the profiles are
the table.

The other sign of a neuron adds a linear term where `s(-x) = s(x) - x` (gelu, silu, softplus). No other neuron can compensate it here, so
that profiles tell the signs.

Axes: H neurons, T points of a profile, o outputs, S starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from extraction.derivatives.questions import Questions
from models import activation_functions
from models.activation_functions import ActivationFunction, value_and_slope

SMOOTH = ("tanh", "sigmoid", "gelu", "silu", "softplus", "g")  # candidates
TWINS = {"sigmoid": "tanh", "tanh": "sigmoid"}  # the same functions up to scales and constants
POINTS = 61
RATES = (0.02, 0.05, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0)  # first values of k, in units of the largest t / 8
PLACES = 13  # first values of b
TRIED, TRIED_AGAIN, WORSE = 4, 40, 100.0  # starts; the same of neurons whose error is larger than a quarter by this factor
PATIENCE = 6  # steps without a gain
STEPS = 40  # of Levenberg-Marquardt
UNKNOWN = 1e-3  # a larger error, as a share of the profile's spread, is no fit
DISTINCT = 5.0  # the second candidate must be worse by this factor


@dataclass(frozen=True)
class Profiles:
    """Answers along the directions of single neurons.

    Attributes:
        places: t, `[H, T]`.
        values: the component of the answers along the direction in which they change most, with mean 0 and norm 1, `[H, T]`.
        impurity: the second singular value of the answers as a share of the first, `[H]`: 0 for a neuron that is alone.
        has_line: whether the other neurons add an affine function of t, so that values are those of a neuron less an affine function.
    """

    places: torch.Tensor
    values: torch.Tensor
    impurity: torch.Tensor
    has_line: bool = False


@dataclass(frozen=True)
class Fitted:
    """Profiles fitted by one activation function.

    Attributes:
        act_fun: its name.
        rates: k, `[H]`.
        places: b, `[H]`.
        errors: the error as a share of the profile's spread, `[H]`.
    """

    act_fun: str
    rates: torch.Tensor
    places: torch.Tensor
    errors: torch.Tensor


@dataclass(frozen=True)
class Axes:
    """Lines `origin + t move` through the planes of neurons.

    Attributes:
        origins: `[H, d]`.
        moves: `[H, d]`.
    """

    origins: torch.Tensor
    moves: torch.Tensor

    @classmethod
    def of_coordinates(cls, base: torch.Tensor) -> Axes:
        """The coordinate axes through a point `[H]`."""
        return cls(base.expand(len(base), -1), torch.eye(len(base), dtype=base.dtype, device=base.device))


def ask_profiles(asked: Questions, axes: Axes, most: torch.Tensor, has_line: bool = False) -> Profiles:
    """Asks along axes that move one neuron each.

    Args:
        asked: the teacher.
        axes: H of them.
        most: the largest |t| of each axis, `[H]`.
        has_line: whether the other neurons move as well, and stay where they are affine.
    """
    nodes = torch.linspace(-1, 1, POINTS, dtype=most.dtype, device=most.device)
    places = most[:, None] * (0.25 * nodes + 0.75 * nodes**3)  # dense around 0
    points = axes.origins[:, None] + places[:, :, None] * axes.moves[:, None]
    answers = torch.cat([asked(some) for some in points]).unflatten(0, places.shape)
    left, sizes, _ = torch.linalg.svd(_less_affine(answers, places, has_line), full_matrices=False)
    second = sizes[:, 1] / sizes[:, 0] if sizes.shape[1] > 1 else torch.zeros_like(most)
    return Profiles(places, left[:, :, 0], second, has_line)


def _less_affine(values: torch.Tensor, places: torch.Tensor, has_line: bool) -> torch.Tensor:
    """Values `[H, T, ...]` less their mean, or less an affine function of the places `[H, T]`."""
    values = values - values.mean(1, keepdim=True)
    if not has_line:
        return values
    line = places - places.mean(1, keepdim=True)
    line = line / line.norm(dim=1, keepdim=True)
    return values - torch.einsum("ht,hs,hs...->ht...", line, line, values)


def named(profiles: Profiles, candidates: Sequence[str] = SMOOTH) -> tuple[Fitted | None, dict[str, float]]:
    """The activation function of profiles, or None where it is unknown, and the median error of every candidate."""
    fits = {name: fit(profiles, name) for name in candidates if TWINS.get(name) not in candidates[: candidates.index(name)]}
    errors = {name: float(fitted.errors.median()) for name, fitted in fits.items()}
    best = min(errors, key=lambda name: errors[name])
    others = [error for name, error in errors.items() if name != best]
    is_clear = not others or min(others) >= DISTINCT * errors[best]
    return (fits[best] if errors[best] <= UNKNOWN and is_clear else None), errors


def fit(profiles: Profiles, act_fun: str) -> Fitted:
    """Fits `c + v s(k t + b)` to every profile: the best of a grid of starts, then Levenberg-Marquardt for all neurons at once.

    Neurons whose error is far above that of the best quarter are fitted again, from more starts.
    """
    values = profiles.values
    activation = activation_functions.get(act_fun)
    largest = profiles.places.abs().amax(1, keepdim=True)
    rates = torch.tensor([sign * rate * 8 for rate in RATES for sign in (1, -1)]).to(values)
    offsets = torch.linspace(-4, 4, PLACES).to(values)
    starts = torch.cartesian_prod(rates, offsets)  # [S, 2]
    scaled = profiles.places / largest
    shapes = activation(starts[:, 0, None] * scaled[:, None] + starts[:, 1, None])  # [H, S, T]
    shapes = _less_affine(shapes.mT, scaled, profiles.has_line)  # [H, T, S]
    likeness = torch.einsum("hts,ht->hs", shapes / shapes.norm(dim=1, keepdim=True).clamp_min(1e-300), values).abs()
    features = affine(activation, profiles.has_line)

    def fitted(which: torch.Tensor, tried: int) -> tuple[torch.Tensor, torch.Tensor]:
        best = likeness[which].topk(tried).indices.flatten()  # [H tried]
        places, repeated = scaled[which].repeat_interleave(tried, 0), values[which].repeat_interleave(tried, 0)
        unknowns, losses = levenberg_marquardt(features, places, repeated, starts[best])
        losses, winner = losses.unflatten(0, (-1, tried)).min(1)
        return unknowns.unflatten(0, (-1, tried))[torch.arange(len(winner), device=winner.device), winner], losses

    unknowns, losses = fitted(torch.arange(len(values), device=values.device), TRIED)
    worse = (losses > WORSE**2 * losses.quantile(0.25)).nonzero()[:, 0]
    if len(worse):
        again, less = fitted(worse, TRIED_AGAIN)
        better = less < losses[worse]
        unknowns[worse[better]], losses[worse[better]] = again[better], less[better]
    return Fitted(act_fun, unknowns[:, 0] / largest[:, 0], unknowns[:, 1], losses.sqrt())


Features = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # of weighted sums [...]: values and derivatives, [..., F]


def affine(activation: ActivationFunction, has_line: bool = False) -> Features:
    """The features s and 1 of one neuron whose output enters the answers linearly, and its weighted sum where a line is added."""

    def features(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, slopes = value_and_slope(activation, sums)
        ones, zeros = torch.ones_like(values), torch.zeros_like(values)
        line = ([sums], [ones]) if has_line else ([], [])
        return torch.stack([values, ones, *line[0]], -1), torch.stack([slopes, zeros, *line[1]], -1)

    return features


def levenberg_marquardt(
    features: Features, places: torch.Tensor, values: torch.Tensor, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits k and b of every neuron to its profile by mixtures of features of `k t + b`.

    The mixtures follow from k and b (variable projection, Golub and Pereyra 1973, with the approximation of Kaufman 1975).

    Args:
        features: of the weighted sums.
        places: t, `[H, T]`.
        values: `[H, T]`.
        start: k and b, `[H, 2]`; or k alone, `[H, 1]`, with b = 0.

    Returns:
        k and b in the same shape, and the sums of squared errors `[H]`.
    """
    unknowns, damping = start.clone(), torch.full_like(start[:, 0], 1e-3)
    loss, step_of = _projected(features, places, values, unknowns)
    idle = torch.zeros_like(loss)
    for _ in range(STEPS):
        loss_before = loss
        trial = unknowns + step_of(damping)
        new, new_step = _projected(features, places, values, trial)
        better = new < loss
        unknowns = torch.where(better[:, None], trial, unknowns)
        loss, step_of = (new, new_step) if bool(better.all()) else _projected(features, places, values, unknowns)
        damping = torch.where(better, damping / 10, damping * 10).clamp_min(1e-15)
        idle = torch.where(new < 0.9 * loss_before, 0, idle + 1)
        if int(idle.min()) > PATIENCE:
            break
    return unknowns, loss


def _projected(features: Features, places: torch.Tensor, values: torch.Tensor, unknowns: torch.Tensor):
    """The squared errors `[H]` of the best mixtures, and the step of k and b as a function of the damping `[H]`."""
    lines = torch.stack([places, torch.ones_like(places)], 2)[:, :, : unknowns.shape[1]]  # [H, T, 2]
    shapes, slopes = features((lines @ unknowns[:, :, None])[:, :, 0])  # [H, T, F]
    orthogonal, triangular = torch.linalg.qr(shapes)
    along = orthogonal.mT @ values[:, :, None]
    residuals = values - (orthogonal @ along)[:, :, 0]
    mixture = torch.linalg.solve_triangular(triangular, along, upper=True)  # [H, F, 1]
    changes = (slopes @ mixture) * lines
    changes = changes - orthogonal @ (orthogonal.mT @ changes)
    normal, right = changes.mT @ changes, changes.mT @ residuals[:, :, None]

    def step_of(damping: torch.Tensor) -> torch.Tensor:
        diagonal = torch.diag_embed(damping[:, None] * normal.diagonal(dim1=1, dim2=2) + 1e-300)
        return torch.linalg.solve_ex(normal + diagonal, right)[0][:, :, 0].nan_to_num()

    return residuals.square().sum(1).nan_to_num(torch.inf), step_of
