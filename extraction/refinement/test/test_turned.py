"""Units that never switch and stand for wrong signs of others: the same function without them."""

import torch

from extraction.network import Layers
from extraction.refinement.turned import turned
from testing.test_case import TestCase

OFFSET = 1000.0  # of the units that never switch


def known(act_fun: str) -> tuple[Layers, torch.Tensor]:
    """A network 5-8-7-2 and queries."""
    generator = torch.Generator().manual_seed(3)
    vectors = [torch.randn(width, inputs + 1, generator=generator, dtype=torch.float64) for inputs, width in ((5, 8), (8, 7), (7, 2))]
    return Layers(tuple(vectors), act_fun), torch.randn(500, 5, generator=generator, dtype=torch.float64)


def with_wrong_signs(network: Layers, wrong: list[int], slope: float) -> Layers:
    """The same function with some units of the second layer turned: s(z) = s(-z) + (1 + slope) z, and mixtures of z that never switch."""
    first, second, last = (each.clone() for each in network.vectors)
    mixture = torch.randn(len(wrong), len(wrong), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    linear, outgoing = mixture @ second[wrong], (1 + slope) * last[:, wrong] @ torch.linalg.inv(mixture)
    linear[:, -1] += OFFSET
    second[wrong] *= -1
    bias = last[:, -1] - OFFSET * outgoing.sum(1)
    return network.replace(first, torch.cat([second, linear]), torch.cat([last[:, :-1], outgoing, bias[:, None]], 1))


class TestTurned(TestCase):
    def test_turned_units_get_their_signs_and_the_others_go(self):
        for act_fun, slope in (("relu", 0.0), ("leaky_relu", 0.01)):
            network, x = known(act_fun)
            other = with_wrong_signs(network, [1, 3], slope)
            torch.testing.assert_close(other.pre_activations(x), network.pre_activations(x), atol=1e-9, rtol=1e-9)
            found = turned(other, x)
            self.assertEqual(found.sizes, network.sizes)
            for mine, true in zip(found.vectors, network.vectors, strict=True):
                torch.testing.assert_close(mine, true, atol=1e-9, rtol=1e-9)

    def test_a_linear_unit_of_its_own_stays(self):
        network, x = known("relu")
        first, second, last = (each.clone() for each in network.vectors)
        second[0, -1] += OFFSET
        self.assertIsNone(turned(network.replace(first, second, last), x))
        self.assertIsNone(turned(network, x))
        self.assertIsNone(turned(Layers(network.vectors, "tanh"), x))
