"""Two further hidden layers of gelu, silu or softplus behind a first layer that is known, of any widths.

Far out, the neurons of the second layer have their kinks on bent surfaces, as those of relu have (`surfaces`), which show their rows but
for their lengths. On a surface, far from all others, the answers across it show the length and the bias (`profiles`). The sign of a neuron
stays open, for s(-z) = s(z) - z. Students of the third layer (`upper`) are given s(z) and s(-z) of each neuron, so that they need no signs.
The linear map that a student leaves to neurons of the wrong sign then shows the signs of all.

Axes: K neurons of the first layer, m of the second, F features, o outputs.
"""

from __future__ import annotations

import torch

from extraction.derivatives import profiles, shallow, upper
from extraction.derivatives.differences import Scale, measure
from extraction.derivatives.from_afar import ACROSS, ZONE
from extraction.derivatives.gauss_newton import polish
from extraction.derivatives.grounds import Ground
from extraction.derivatives.lines import Precision
from extraction.derivatives.profiles import Axes
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.surfaces import Features, with_roots
from extraction.derivatives.widening import SHARES, WIDEST, next_layer
from extraction.network import Layers
from extraction.symmetry import symmetries
from models import activation_functions
from models.mlp import with_ones

AFAR = 2.0**26  # weighted sums of the first layer
TRIED, PLACES = 128, 12  # lines that may cross the surface of a neuron, and places with the most room, of which the best profile counts
UNUSED = 1e-4  # weights below this share of the largest are those of no neuron of the second layer
NEAR, STEPS = 1e-4, 200  # the loss of a student that a fit of all weights is tried from, and its steps
WIDTHS = range(1, 11)  # of the third layer
EQUATIONS, MORE = 4.0, 40  # for each unknown of a student, and so many more


def suits(act_fun: str) -> bool:
    """Whether an activation function looks like relu from afar, and leaves signs open."""
    return symmetries[act_fun].slope != 0 and not symmetries[act_fun].positive_scaling


def recover(asked: Questions, scale: Scale, sums: shallow.Sums, act_fun: str) -> Layers:
    """The network, the output layer last.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        sums: the weighted sums of its first layer.
        act_fun: its activation function.

    Raises:
        Lacking: it has not three hidden layers, or not all neurons of the second show far out.
    """
    within = sums.within(asked)
    second = find(within, act_fun)
    inputs, outputs = within.inputs, len(scale.spread)
    unknowns = WIDTHS[-1] * (2 * len(second) + 1 + outputs)
    points = upper.BREADTH * within.normal(int(EQUATIONS * unknowns / outputs) + MORE, inputs)
    inner = with_ones(activation_functions.get(act_fun)(points)) @ second.T
    problem = upper.Problem(torch.cat([inner, -inner], 1), within(points), is_settled=True)
    least = float("inf")
    for width in WIDTHS:
        student, loss = upper.best(problem, upper.fresh(problem, asked, (width,), act_fun))
        least = min(least, loss)
        if loss <= NEAR:
            signed = _signed(second, student.upper[0][0])
            complete, loss = _finished(upper.Problem(points, problem.answers), (*signed, student.upper[1][0]), act_fun)
            if loss <= upper.SOLVED:
                return shallow.widen(asked, scale, sums, polish(complete.layers(0), points, problem.answers).layers)
    raise Lacking(f"behind the {len(second)} neurons of the second layer that show far out, students come to a loss of {least:.0e}")


def _finished(problem: upper.Problem, layers: tuple[torch.Tensor, ...], act_fun: str) -> tuple[upper.Students, float]:
    """The layers behind the first, `[K, D]` each, after a fit of all weights, without neurons that they do not need; and the loss."""
    first = torch.tensor([1.0, 0.0]).to(problem.queries).expand(1, problem.queries.shape[1], 2)
    student, losses = upper.train(problem, upper.Students(first, tuple(each[None] for each in layers), act_fun), STEPS, upper.SOLVED)
    loss = float(losses[0])
    return upper.minimal(problem, student, loss) if loss <= upper.SOLVED else (student, loss)


def find(within: Questions, act_fun: str) -> torch.Tensor:
    """The incoming vectors of the second layer, the bias last, `[m, K + 1]`, of those neurons that show far out, up to signs.

    Args:
        within: the network by the weighted sums of the first layer.
        act_fun: its activation function.
    """
    width = within.inputs
    if width > WIDEST:
        raise Lacking(f"a second layer is looked for up to {WIDEST} neurons of the first")
    near, far = measure(within, radius=1.0), measure(within, radius=AFAR)
    precision = Precision(resolution=ZONE * near.unit(width) / AFAR)
    scaled = within.through(lambda points: AFAR * points, width)
    ground = Ground(scaled, Scale(1.0, far.spread, far.error), precision=precision)
    features = Features((torch.eye(width, width + 1, dtype=torch.float64, device=within.device),))
    found = next_layer(ground, features, [], SHARES[-1]).vectors
    if not len(found):
        raise Lacking("no neuron of the second layer shows far out")
    kinds = [_places(ground, features, vector, torch.cat([found[:number], found[number + 1 :]])) for number, vector in enumerate(found)]
    which = torch.arange(len(found), device=found.device).repeat_interleave(PLACES)
    places = torch.cat(kinds)
    values, jacobians = features.at(places)[:2]
    normals = torch.einsum("nfk,nf->nk", jacobians, found[which, :-1])
    lengths = normals.norm(dim=1)
    axes = Axes(AFAR * places, normals / lengths[:, None])
    fitted = profiles.fit(profiles.ask_profiles(within, axes, torch.full_like(lengths, ACROSS), has_line=True), act_fun)
    best = fitted.errors.unflatten(0, (-1, PLACES)).argmin(1) + PLACES * torch.arange(len(found), device=found.device)
    best = best[fitted.errors[best] <= profiles.UNKNOWN]
    if not len(best):
        raise Lacking("no neuron of the second layer shows far out")
    signs = fitted.rates[best].sign()
    weights = (fitted.rates[best] * signs / lengths[best])[:, None] * found[which[best], :-1]
    return torch.cat([weights, (fitted.places[best] * signs - AFAR * (weights * values[best]).sum(1))[:, None]], 1)


def _places(ground: Ground, features: Features, vector: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Points of the surface of a neuron `[F + 1]` that are far from those of others `[m, F + 1]` on lines, `[PLACES, K]`."""
    points, rooms = [], []
    for _ in range(TRIED):
        line = ground.line()
        known = features.places(line)
        roots = features.roots(line, known, vector[None])
        if len(roots):
            room = (roots[:, None] - with_roots(known, features.roots(line, known, others))).abs().amin(1)
            points.append(line.at(roots[room.argmax()][None])[0])
            rooms.append(room.max())
    if len(points) < PLACES:
        raise Lacking("the surface of a neuron of the second layer was lost")
    return torch.stack(points)[torch.stack(rooms).topk(PLACES).indices]


def _signed(second: torch.Tensor, third: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The second layer with its likely signs, without neurons that are none, and the third over it.

    With weights a of s(z) and b of s(-z), a row of the third layer is `sum_i (a_i + b_i) s(z_i) - b_i z_i`. Neurons of the wrong sign have
    the weights c = a + b, and leave `-c_i z_i`: so `sum_i b_i w_i` is the sum of `c_i w_i` over the neurons of the wrong sign.

    Args:
        second: `[m, K + 1]`.
        third: over s(z), s(-z) and 1, `[n, 2 m + 1]`.
    """
    count = len(second)
    turned = third[:, count:-1]
    both = third[:, :count] + turned
    used = both.abs().amax(0) > UNUSED * both.abs().max()
    kept, weights = second[used], both[:, used]
    left = turned @ second  # [n, K + 1]
    maps = torch.einsum("nm,mk->nkm", weights, kept[:, :-1]).flatten(0, 1)
    shares = torch.linalg.lstsq(maps, left[:, :-1].reshape(-1, 1), driver="gelsd").solution[:, 0]
    wrong = shares.round().clamp(0, 1)
    bias = third[:, -1] - left[:, -1] + weights @ (wrong * kept[:, -1])
    return kept * (1 - 2 * wrong)[:, None], torch.cat([weights, bias[:, None]], 1)
