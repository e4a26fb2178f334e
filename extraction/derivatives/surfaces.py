"""Where the neurons of a piecewise-linear network have their kinks, for layers of any widths.

A neuron of a layer has its kinks where its weighted sum is 0: a surface that is bent at the kinks of the layers before. Its weighted sum is
a linear function of *features*, which the layers before give: their outputs, where the signs of their neurons are known; else `|z|` of the
last layer with the outputs of the layer before it, as `s(z) = (1 - a) / 2 |z| + (1 + a) / 2 z`, so that no sign is needed. Every kink that
is met shows a point of a surface, and its normal there: as many equations for the neuron as there are inputs. A surface is followed through
the kinks of the layers before, until its equations have one solution. Its kinks are then predicted on fresh lines.

Axes: P points, d inputs, m neurons, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.derivatives.grounds import Ground
from extraction.derivatives.lines import Kinks, Line, find_kinks
from extraction.derivatives.pieces import measured
from extraction.derivatives.result import Lacking
from models.mlp import with_ones

TANGENTS = 12  # directions along a surface that are looked at, for each step
STEPS = 12  # along a surface, beyond those that equations need
AHEAD = (3.0, 30.0, 300.0)  # how far the next kink of the layers before is looked for
BEHIND, SHARE = 0.05, 0.25  # the largest step behind it, and the same as a share of the way to the one after it
ASIDE = (4.0, 30.0)  # where the surface is looked for there, in steps
SHRINK, SHRUNK = 0.1, 3  # of that step where other surfaces are near, and how often
MANY = 64  # bends of so short a line, which are rounding errors
STEEP = 0.05  # the least part of a normal along the surface of the layer before
NONE = 1e-6  # singular values below this share of the largest are zero
MATCHED = 1e-6  # relative error of a predicted kink
PREDICTED = 40  # kinks on fresh lines
NEAREST, DISTANCES = 3e-3, 4  # the shortest line, as a share of the longest, and lengths in turn
FIRST = 4  # of them, of which one must be there
NARROW = 1e-4  # the distance from a predicted kink at which answers show it


@dataclass(frozen=True)
class Features:
    """The layers that are known.

    Attributes:
        signed: incoming vectors of layers whose signs are known, `[m, before + 1]` each.
        unsigned: the same of one more layer, whose signs are not known; None where there is none.
        slope: of the activation function on the negative side.
    """

    signed: tuple[torch.Tensor, ...] = ()
    unsigned: torch.Tensor | None = None
    slope: float = 0.0

    def at(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features and weighted sums at points `[P, d]`.

        Returns:
            The features `[P, F]`, their Jacobians `[P, F, d]`, all weighted sums `[P, m]`, and their Jacobians `[P, m, d]`.
        """
        values = points
        jacobian = torch.eye(points.shape[1], dtype=points.dtype, device=points.device).expand(len(points), -1, -1)
        sums, slopes = [values[:, :0]], [jacobian[:, :0]]
        for vectors in [*self.signed, *([] if self.unsigned is None else [self.unsigned])]:
            sums.append(with_ones(values) @ vectors.T)
            slopes.append(vectors[:, :-1] @ jacobian)
            if vectors is self.unsigned:
                values = torch.cat([sums[-1].abs(), values], 1)
                jacobian = torch.cat([sums[-1].sign()[:, :, None] * slopes[-1], jacobian], 1)
            else:
                factors = torch.where(sums[-1] > 0, 1.0, self.slope).to(points)
                values, jacobian = factors * sums[-1], factors[:, :, None] * slopes[-1]
        return values, jacobian, torch.cat(sums, 1), torch.cat(slopes, 1)

    def places(self, line: Line) -> torch.Tensor:
        """Where the weighted sums are 0 on a line, in ascending order with its ends first and last, `[kinks + 2]`."""
        places = line.origin.new_tensor([line.low, line.high])
        known = Features(slope=self.slope)
        for vectors in self.signed:
            places = with_roots(places, known.roots(line, places, vectors))
            known = Features((*known.signed, vectors), slope=self.slope)
        return places if self.unsigned is None else with_roots(places, known.roots(line, places, self.unsigned))

    def roots(self, line: Line, places: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Where neurons with vectors `[m, F + 1]` over the features have their kinks on a line, between `places`, `[kinks]`."""
        sums = with_ones(self.at(line.at(places))[0]) @ vectors.T
        low, high = sums[:-1], sums[1:]
        interval, neuron = (low * high < 0).nonzero().T
        here, there = low[interval, neuron], high[interval, neuron]
        return places[interval] + here / (here - there) * places.diff()[interval]


def with_roots(places: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
    """Places with others among them, in ascending order."""
    return torch.cat([places, roots]).sort().values


def unexplained(kinks: Kinks, features: Features, found: torch.Tensor) -> torch.Tensor:
    """The numbers of the kinks that neither known layers explain nor neurons `[m, F + 1]` over their features."""
    known = features.places(kinks.line)
    if len(found):
        known = torch.cat([known, features.roots(kinks.line, known, found)])
    size = kinks.line.origin.norm() + kinks.places.abs()[:, None]
    return (~((kinks.places[:, None] - known).abs() <= MATCHED * size).any(1)).nonzero()[:, 0]


def follow(ground: Ground, features: Features, kinks: Kinks, number: int) -> torch.Tensor | None:
    """The neurons of the next layer that a kink may belong to.

    Args:
        ground: the function.
        features: of the layers before.
        kinks: of a line.
        number: of the kink.

    Returns:
        A basis of their vectors over the features, `[n, F + 1]`: of one unit vector, or of more where the surface does not cross those of
        all neurons before; None where there is no such neuron, or its surface was lost at once.
    """
    met = _met(ground, kinks, number)
    if met is None:
        return None
    points, normals, visited = [met[0]], [met[1]], {_pattern(features, met[0])}
    count = features.at(met[0][None])[0].shape[1]
    while True:
        vectors = _solved(features, torch.stack(points), torch.stack(normals))
        if len(vectors) <= 1 or len(points) > STEPS + 2 * count // len(met[0]):
            break
        met = _step(ground, features, (points, normals), visited)
        if met is None:
            break
        points.append(met[0])
        normals.append(met[1])
        visited.add(_pattern(features, met[0]))
    return vectors if len(vectors) else None


def _met(ground: Ground, kinks: Kinks, number: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A point of a surface and its normal there."""
    neuron = measured(ground.asked, kinks, torch.tensor([number], device=kinks.places.device))
    if not len(neuron.biases):
        return None
    normal, point = neuron.incoming[0], kinks.points[number]
    return point - (normal @ point + neuron.biases[0]) * normal, normal


def _pattern(features: Features, point: torch.Tensor) -> tuple[bool, ...]:
    """On which side of each known kink a point is."""
    return tuple((features.at(point[None])[2][0] > 0).tolist())


def _solved(features: Features, points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """A basis of the vectors over the features that are 0 at points `[P, d]` with normals `[P, d]`, `[n, F + 1]`, each of unit length."""
    values, jacobians, _, _ = features.at(points)
    along = torch.linalg.svd(normals[:, None])[2][:, 1:]  # [P, d - 1, d]
    slopes = torch.nn.functional.pad(along @ jacobians.mT, (0, 1))  # [P, d - 1, F + 1]
    sums = with_ones(values) / (1 + points.norm(dim=1, keepdim=True))
    matrix = torch.cat([slopes.flatten(0, 1), sums])
    scales = matrix.norm(dim=0).clamp_min(1e-300)
    sizes, directions = torch.linalg.svd(matrix / scales)[1:]
    rank = int((sizes > NONE * sizes[0]).sum())
    return torch.nn.functional.normalize(directions[rank:] / scales, dim=1)


def _step(
    ground: Ground, features: Features, before: tuple[list[torch.Tensor], list[torch.Tensor]], visited: set[tuple[bool, ...]]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A point of the surface, with its normal, on a side of known kinks that was not visited."""
    for ahead in AHEAD:
        for point, normal in reversed(list(zip(*before, strict=True))):
            tangents = ground.asked.normal(TANGENTS, ground.asked.inputs)
            tangents = torch.nn.functional.normalize(tangents - (tangents @ normal)[:, None] * normal, dim=1)
            for tangent in tangents:
                line = Line(point, tangent, 0.0, ahead * ground.scale.unit(ground.asked.inputs))
                places = features.places(line)
                if len(places) < 3 or _pattern(features, line.at(places[1:3].mean()[None])[0]) in visited:
                    continue
                met = _behind(ground, features, (line, normal), places[1:3])
                if met is not None:
                    return met
                break
    return None


def _behind(
    ground: Ground, features: Features, along: tuple[Line, torch.Tensor], places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The surface behind the first of two places where known layers have kinks.

    Args:
        ground: the function.
        features: of known layers.
        along: a line along the surface, and the normal of the surface `[d]`.
        places: of the line.
    """
    line, normal = along
    sums, slopes = (each[0] for each in features.at(line.at(places[:1]))[2:])
    bending = torch.nn.functional.normalize(slopes[(sums.abs() / slopes.norm(dim=1).clamp_min(1e-300)).argmin()], dim=0)
    direction = normal - (normal @ bending) * bending  # stays behind the kink
    if float(direction.norm()) < STEEP:
        return None
    direction = direction / direction.norm()
    step = min(SHARE * float(places[1] - places[0]), BEHIND * ground.scale.unit(ground.asked.inputs))
    none = features.at(line.origin[None])[0].new_zeros(0, 1)
    for _ in range(SHRUNK):
        point = line.at(places[:1] + step)[0]
        for aside in ASIDE:
            try:
                across = Line(point, direction, -aside * step, aside * step)
                kinks = find_kinks(ground.asked, across, ground.scale, ground.precision, MANY)
            except Lacking:  # rounding errors
                return None
            new = unexplained(kinks, features, none)
            if len(new) == 1:
                return _met(ground, kinks, int(new[0]))
            if len(new) > 1:
                break
        step *= SHRINK
    return None


def is_predicted(ground: Ground, features: Features, vector: torch.Tensor, share: float) -> bool:
    """Whether the function has kinks at a share of the places where fresh lines cross the surface of a neuron `[F + 1]`."""
    there = []
    for number in range(4 * PREDICTED):
        line = ground.line()
        reach = line.high * NEAREST ** (number % DISTANCES / (DISTANCES - 1))
        line = Line(line.origin, line.direction, -reach, reach)
        roots = features.roots(line, features.places(line), vector[None])
        if not len(roots):
            continue
        place = roots[int(ground.asked.uniform(1).abs() * len(roots))]
        there.append(_bends(ground, line, place))
        if len(there) == PREDICTED or (len(there) == FIRST and not any(there)):
            break
    return len(there) >= FIRST and sum(there) >= share * len(there)


def _bends(ground: Ground, line: Line, place: torch.Tensor) -> bool:
    """Whether the function bends at a place of a line."""
    size = float(line.origin.norm() + place.abs()) + ground.scale.radius
    step = max(NARROW * size, 3 * ground.precision.resolution)
    values = ground.asked(line.at(place + step * torch.tensor([-1.0, 0.0, 1.0]).to(place)))
    bends = (values[0] + values[2] - 2 * values[1]).abs()
    return bool((bends > 8 * ground.precision.rounding * values.abs().amax(0) + 50 * ground.scale.error).any())
