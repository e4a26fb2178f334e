"""The first layer from jumps far out, against the weights of known networks."""

import unittest

import torch

from extraction.derivatives import differences, transitions
from extraction.derivatives.test import known


class TestFirstLayer(unittest.TestCase):
    def test_directions_and_rates_are_right_to_rounding(self):
        network = known.layers((6, 6, 4, 2), "tanh")
        asked = known.asked(network)
        found, true = transitions.first_layer(asked, differences.measure(asked)), network.vectors[0]
        cosines = torch.nn.functional.normalize(found[:, :-1], dim=1) @ torch.nn.functional.normalize(true[:, :-1], dim=1).T
        partner = cosines.abs().argmax(1)
        self.assertEqual(sorted(partner.tolist()), list(range(6)))
        signs = cosines[torch.arange(6), partner].sign()
        torch.testing.assert_close(found[:, :-1] * signs[:, None], true[partner, :-1], atol=1e-8, rtol=0)

    def test_depth_shows_in_one_jump(self):
        for sizes, deep in (((6, 4, 2), False), ((6, 4, 1), False), ((6, 4, 3, 2), True), ((6, 4, 3, 1), True)):
            with self.subTest(sizes=sizes):
                asked = known.asked(known.layers(sizes, "tanh"))
                self.assertEqual(transitions.is_deep(asked, differences.measure(asked)), deep)

    def test_saturation_shows_far_out(self):
        for act_fun in ("tanh", "sigmoid", "gelu", "softplus"):
            with self.subTest(act_fun=act_fun):
                asked = known.asked(known.layers((6, 4, 2), act_fun))
                self.assertEqual(transitions.saturates(asked, differences.measure(asked)), act_fun in ("tanh", "sigmoid"))
