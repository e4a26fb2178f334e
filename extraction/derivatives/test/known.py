"""Random networks that are asked, for the tests of derivatives."""

from __future__ import annotations

import unittest

import torch

from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import recover
from extraction.evaluation import score
from extraction.network import Layers


def layers(sizes: tuple[int, ...], act_fun: str, seed: int = 0) -> Layers:
    """A network with PyTorch's default initialisation, in float64."""
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(sizes, sizes[1:], strict=False)
    uniform = [(torch.rand(width, inputs + 1, generator=generator, dtype=torch.float64) * 2 - 1) / inputs**0.5 for inputs, width in pairs]
    return Layers(tuple(uniform), act_fun)


def asked(network: Layers, budget: int | None = None) -> Questions:
    """The network as a teacher."""
    return Questions(network.pre_activations, network.sizes[0], budget)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class RecoveryTestCase(unittest.TestCase):
    def assert_found(self, network: Layers, within: float) -> None:
        """Fails unless derivatives find a network, all its queries counted, with weights whose relative error is below `within`."""
        teacher = asked(network)
        result = recover(teacher)
        self.assertEqual((result.lacks, result.queries), ((), teacher.count.asked))
        assert result.layers is not None
        compared = score(result.layers, network)
        self.assertTrue(compared.identified)
        self.assertLess(compared.max_relative_error, within)
