"""Neurons that were found in two parts, each for some categories, become one."""

import unittest

import torch

from extraction.network import Layers
from extraction.refinement.parted import unions
from extraction.test.known_networks import queries

CATEGORIES = torch.eye(3).double()[torch.arange(300) % 3]


class TestUnions(unittest.TestCase):
    def parted(self, act_fun, off):
        """Queries with three categories, a network, and the same with its second neuron in two parts; each is `off` for the other."""
        x = torch.cat([queries(300, 2), CATEGORIES], 1)
        common, shifts = torch.tensor([0.8, -0.5]).double(), torch.tensor([0.3, -0.6, 0.4]).double()
        other = torch.tensor([0.2, 0.9, 0.5, -0.2, 0.1, 0.3]).double()
        whole = torch.cat([common, shifts, torch.zeros(1).double()])
        parts = [torch.cat([common, torch.where(shown, shifts, off), torch.zeros(1).double()]) for shown in self.masks]
        outgoing = torch.tensor([[0.7, 0.4, 0.2], [-0.3, 0.9, 0.1]]).double()
        true = Layers((torch.stack([other, whole]), outgoing), act_fun)
        constant = 1.0 if act_fun == "tanh" else 0.0
        both = torch.cat([outgoing[:, :2], outgoing[:, 1:2], outgoing[:, 2:] - constant * outgoing[:, 1:2]], 1)
        return x, true, Layers((torch.stack([other, *parts]), both), act_fun)

    masks = torch.tensor([True, True, False]), torch.tensor([False, False, True])

    def test_two_parts_become_one_neuron(self):
        for act_fun, off in (("tanh", 25.0), ("relu", -25.0), ("gelu", -25.0)):
            x, true, parted = self.parted(act_fun, torch.tensor(off).double())
            torch.testing.assert_close(parted.pre_activations(x), true.pre_activations(x), rtol=0, atol=1e-12)
            (united,) = unions(parted, x)
            self.assertEqual(united.sizes, [5, 2, 2])
            torch.testing.assert_close(united.pre_activations(x), true.pre_activations(x), rtol=0, atol=1e-9)

    def test_two_neurons_that_show_for_the_same_queries_stay_two(self):
        x, true, parted = self.parted("tanh", torch.tensor(0.9).double())
        self.assertEqual([*unions(parted, x)], [])
        self.assertEqual([*unions(true, x)], [])


if __name__ == "__main__":
    unittest.main()
