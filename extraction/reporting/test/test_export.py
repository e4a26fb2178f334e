"""Tests of extraction/reporting/export.py."""

from __future__ import annotations

import io
import os
import tempfile
import unittest

import numpy as np
import torch

from extraction.reporting import export
from models import initializers
from models.activation_functions import activation_functions
from models.mlp import Model


def network_of(act_fun: str) -> Model:
    torch.manual_seed(0)
    network = Model([3, 5, 4, 2], act_fun, initializers.kaiming_normal).double()
    for layer in network.affine_layers:
        torch.nn.init.normal_(layer.bias)
    return network


class TestExport(unittest.TestCase):
    def setUp(self):
        self.queries = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def test_layers_of_plain_torch_give_the_same_outputs(self):
        self.assertEqual(set(export.MODULES), set(activation_functions))
        for act_fun in (*activation_functions, "leaky_relu:0.2"):
            with self.subTest(act_fun), torch.no_grad():
                network = network_of(act_fun)
                torch.testing.assert_close(
                    export.sequential(network.layer_vectors(), act_fun)(self.queries), network(self.queries), rtol=1e-14, atol=1e-14
                )

    def test_a_linear_map_of_the_inputs_is_added(self):
        network, linear = network_of("tanh"), torch.randn(2, 3, dtype=torch.float64)
        expected = network(self.queries).detach() + self.queries @ linear.T
        exported = torch.export.load(io.BytesIO(export.program(network, linear))).module()
        torch.testing.assert_close(exported(self.queries), expected, rtol=1e-14, atol=1e-14)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path, term, names = os.path.join(folder, "weights.pth"), os.path.join(folder, "term.npy"), {}
            torch.save(network.state_dict(), path)
            np.save(term, linear.numpy())
            exec("\n".join(export.lines(network.sizes, "tanh", path, term)), names)
            torch.testing.assert_close(names["outputs"](self.queries), expected, rtol=1e-14, atol=1e-14)

    def test_lines_of_python_rebuild_the_network_from_its_file(self):
        for act_fun in (*activation_functions, "leaky_relu:0.2"):
            with self.subTest(act_fun), tempfile.TemporaryDirectory() as folder, torch.no_grad():
                network, names = network_of(act_fun), {}
                path = os.path.join(folder, "the weights.pth")
                torch.save(network.state_dict(), path)
                exec("\n".join(export.lines(network.sizes, act_fun, path)), names)
                torch.testing.assert_close(names["network"](self.queries), network(self.queries), rtol=1e-14, atol=1e-14)

    def test_exported_program_takes_any_number_of_examples(self):
        network = network_of("g")
        loaded = torch.export.load(io.BytesIO(export.program(network))).module()
        with torch.no_grad():
            for count in (1, 7):
                torch.testing.assert_close(loaded(self.queries[:count]), network(self.queries[:count]), rtol=1e-14, atol=1e-14)


if __name__ == "__main__":
    unittest.main()
