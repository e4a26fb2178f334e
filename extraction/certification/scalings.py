"""What scalings of neurons with a kink do to all weights: directions in which the function does not change.

The incoming vector of such a neuron can be multiplied by a factor, and its outgoing vector divided by it. So the Jacobian is singular, and
only what is orthogonal to these directions can be determined. Columns of the Jacobian are of unit length: a change of a weight counts by
the length of its column.

Axes: K neurons of a layer, D its inputs with the bias last, N hidden neurons in total.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

Vectors = list[torch.Tensor]


class Scalings:
    """The directions of a network, and the projection onto their orthogonal complement.

    Args:
        layers: the vectors of each layer, `[K, D]`.
        lengths: of the columns of the Jacobian, in the same shapes.
        count: of the layers whose weights are unknown; the others follow from them.
    """

    def __init__(self, layers: Sequence[torch.Tensor], lengths: Sequence[torch.Tensor], count: int):
        self.parts = [vectors * length for vectors, length in zip(layers, lengths, strict=True)]
        self.hidden, self.count = len(layers) - 1, count
        widths = [len(vectors) for vectors in layers[:-1]]
        ends = torch.tensor([0, *widths]).cumsum(0).tolist()
        gram = self.parts[0].new_zeros(ends[-1], ends[-1])
        for depth, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
            own = gram[start:end, start:end].diagonal()
            own += self.parts[depth].square().sum(1)
            if depth + 1 < count:
                shared = self.parts[depth + 1][:, :-1].square()
                own += shared.sum(0)
                if depth + 1 < self.hidden:
                    gram[ends[depth + 1] : ends[depth + 2], start:end] = -shared
                    gram[start:end, ends[depth + 1] : ends[depth + 2]] = -shared.T
        self.widths, self.inverse = widths, torch.linalg.pinv(gram, hermitian=True)

    def __len__(self) -> int:
        """The number of directions, N."""
        return len(self.inverse)

    def orthogonal(self, change: Vectors) -> Vectors:
        """A change of all weights, in the shapes of the layers, less its part along the directions."""
        products = [(each * part).sum(1) for each, part in zip(change[: self.hidden], self.parts, strict=False)]
        for depth in range(1, self.count):
            products[depth - 1] = products[depth - 1] - (change[depth] * self.parts[depth])[:, :-1].sum(0)
        shares = (self.inverse @ torch.cat(products)).split(self.widths)
        result = list(change)
        for depth, share in enumerate(shares):
            result[depth] = result[depth] - share[:, None] * self.parts[depth]
            if depth + 1 < self.count:
                moved = self.parts[depth + 1] * torch.cat([share, share.new_zeros(1)])
                result[depth + 1] = result[depth + 1] + moved
        return result
