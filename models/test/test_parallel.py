"""Stacked layers compared with a loop over plain layers."""

import torch
from torch import nn

from models import parallel
from testing.test_case import TestCase

NETWORKS, BATCH, INPUTS, OUTPUTS = 3, 5, 4, 2


def plain(layer: parallel.Linear, network: int) -> nn.Linear:
    """The layer of one network as a plain layer."""
    made = nn.Linear(layer.weight.shape[1], layer.weight.shape[2], dtype=layer.weight.dtype)
    made.weight.data, made.bias.data = layer.weight.data[network].T.clone(), layer.bias.data[network, 0].clone()
    return made


class LinearTest(TestCase):
    def setUp(self):
        super().setUp()
        torch.manual_seed(0)
        self.layer = parallel.Linear(NETWORKS, INPUTS, OUTPUTS).double()
        self.shared = torch.randn(BATCH, INPUTS, dtype=torch.float64)
        self.own = torch.randn(NETWORKS, BATCH, INPUTS, dtype=torch.float64)

    def test_every_network_receives_a_shared_input(self):
        outputs = self.layer(self.shared)
        self.assertEqual(outputs.shape, (NETWORKS, BATCH, OUTPUTS))
        for network in range(NETWORKS):
            torch.testing.assert_close(outputs[network], plain(self.layer, network)(self.shared), rtol=1e-13, atol=1e-14)

    def test_every_network_receives_its_own_stacked_input(self):
        outputs = self.layer(self.own)
        for network in range(NETWORKS):
            torch.testing.assert_close(outputs[network], plain(self.layer, network)(self.own[network]), rtol=1e-13, atol=1e-14)

    def test_gradients_are_those_of_the_separate_networks(self):
        for x in (self.shared, self.own):
            self.layer.zero_grad()
            self.layer(x).square().sum().backward()
            for network in range(NETWORKS):
                alone = plain(self.layer, network)
                alone(x if x.dim() == 2 else x[network]).square().sum().backward()
                torch.testing.assert_close(self.layer.weight.grad[network], alone.weight.grad.T, rtol=1e-12, atol=1e-13)
                torch.testing.assert_close(self.layer.bias.grad[network, 0], alone.bias.grad, rtol=1e-12, atol=1e-13)

    def test_initial_biases_are_distributed_as_in_a_plain_layer(self):
        biases = parallel.Linear(20, 16, 50).bias
        self.assertLessEqual(biases.abs().max().item(), 1 / 4)
        self.assertAlmostEqual(biases.std().item(), 1 / 4 / 3**0.5, delta=0.01)


class KernelsTest(TestCase):
    def test_kernels_of_a_stack_are_those_of_the_plain_layers(self):
        layer = parallel.Linear(NETWORKS, INPUTS, OUTPUTS)
        kernels = list(parallel.kernels(layer))
        self.assertEqual([kernel.shape for kernel in kernels], [(OUTPUTS, INPUTS)] * NETWORKS)
        for network, kernel in enumerate(kernels):
            self.assertTrue(torch.equal(kernel, plain(layer, network).weight))

    def test_writing_to_a_kernel_changes_the_layer(self):
        for layer in (parallel.Linear(NETWORKS, INPUTS, OUTPUTS), nn.Linear(INPUTS, OUTPUTS), nn.Conv2d(1, 2, 3)):
            for number, kernel in enumerate(parallel.kernels(layer)):
                kernel.fill_(number + 1)
            self.assertEqual(sorted(set(layer.weight.flatten().tolist())), [float(i + 1) for i in range(number + 1)])

    def test_modules_without_their_own_kernel_have_no_kernels(self):
        for module in (nn.BatchNorm2d(2), nn.ReLU(), nn.Sequential(nn.Linear(1, 1))):
            self.assertEqual(list(parallel.kernels(module)), [])
