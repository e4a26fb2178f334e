"""Initial weights of plain and stacked layers."""

import scipy.stats
import torch
from torch import nn

from models import bn_initializers, initializers, parallel
from testing.test_case import TestCase

FAN_IN, FAN_OUT = 200, 50
CHANNELS, SIDE = 8, 5  # of a convolution with the same fan-in


def layers(initializer) -> dict[str, list[torch.Tensor]]:
    """The initial kernels `[FAN_OUT, FAN_IN]` of a plain layer, a stack of three layers and a convolution."""
    torch.manual_seed(0)
    plain, stacked = nn.Linear(FAN_IN, FAN_OUT), parallel.Linear(3, FAN_IN, FAN_OUT)
    convolution = nn.Conv2d(CHANNELS, FAN_OUT, SIDE)
    for module in (plain, stacked, convolution):
        module.apply(initializer)
    kernels = {"plain": [plain.weight], "stacked": [weight.T for weight in stacked.weight], "convolution": [convolution.weight.flatten(1)]}
    return {kind: [kernel.detach() for kernel in group] for kind, group in kernels.items()}


class InitializersTest(TestCase):
    def assert_for_all(self, initializer, check):
        for kind, kernels in layers(initializer).items():
            for number, kernel in enumerate(kernels):
                with self.subTest(kind, network=number):
                    check(kernel)

    def assert_distributed(self, initializer, distribution):
        def check(kernel):
            self.assertGreater(scipy.stats.kstest(kernel.flatten().numpy(), distribution.cdf).pvalue, 1e-3)

        self.assert_for_all(initializer, check)

    def test_kaiming_normal_is_normal_with_variance_two_over_fan_in(self):
        self.assert_distributed(initializers.kaiming_normal, scipy.stats.norm(scale=(2 / FAN_IN) ** 0.5))

    def test_kaiming_uniform_is_uniform_with_variance_two_over_fan_in(self):
        bound = (6 / FAN_IN) ** 0.5
        self.assert_distributed(initializers.kaiming_uniform, scipy.stats.uniform(-bound, 2 * bound))

    def test_orthogonal_kernels_have_orthonormal_rows(self):
        def check(kernel):
            torch.testing.assert_close(kernel @ kernel.T, torch.eye(FAN_OUT), rtol=0, atol=1e-5)

        self.assert_for_all(initializers.orthogonal, check)

    def test_binary_kernels_have_two_values_of_one_size(self):
        def check(kernel):
            low, high = sorted(set(kernel.flatten().tolist()))
            self.assertEqual(low, -high)
            self.assertAlmostEqual(high, (2 / FAN_IN) ** 0.5, delta=0.003)
            self.assertAlmostEqual((kernel > 0).double().mean().item(), 0.5, delta=0.03)

        self.assert_for_all(initializers.binary, check)

    def test_the_networks_of_a_stack_have_different_initial_weights(self):
        for initializer in (initializers.kaiming_normal, initializers.kaiming_uniform, initializers.orthogonal, initializers.binary):
            first, second, third = layers(initializer)["stacked"]
            self.assertFalse(torch.equal(first, second) or torch.equal(second, third) or torch.equal(first, third))

    def test_biases_and_batch_norm_are_not_changed(self):
        modules = nn.ModuleList([nn.Linear(4, 3), parallel.Linear(2, 4, 3), nn.BatchNorm1d(3)])
        others = {name: value.clone() for name, value in modules.state_dict().items() if name not in ("0.weight", "1.weight")}
        modules.apply(initializers.kaiming_normal)
        for name, value in others.items():
            self.assertTrue(torch.equal(modules.state_dict()[name], value), name)


class BatchNormInitializersTest(TestCase):
    def initialised(self, initializer) -> nn.ModuleList:
        modules = nn.ModuleList([nn.BatchNorm1d(500), nn.BatchNorm2d(500), nn.Linear(2, 2)])
        for norm in modules[:2]:
            nn.init.constant_(norm.bias, 5)
            nn.init.constant_(norm.weight, 5)
        return modules.apply(initializer)

    def test_uniform_scales_are_between_0_and_1_with_shifts_of_0(self):
        torch.manual_seed(0)
        for norm in self.initialised(bn_initializers.uniform)[:2]:
            self.assertGreater(scipy.stats.kstest(norm.weight.detach().numpy(), "uniform").pvalue, 1e-3)
            self.assertEqual(norm.bias.abs().max().item(), 0)

    def test_fixed_scales_are_1_with_shifts_of_0(self):
        for norm in self.initialised(bn_initializers.fixed)[:2]:
            self.assertEqual(set(norm.weight.tolist()), {1.0})
            self.assertEqual(set(norm.bias.tolist()), {0.0})

    def test_positivenegative_scales_are_between_minus_1_and_1_with_shifts_of_0(self):
        torch.manual_seed(0)
        for norm in self.initialised(bn_initializers.positivenegative)[:2]:
            self.assertGreater(scipy.stats.kstest(norm.weight.detach().numpy(), scipy.stats.uniform(-1, 2).cdf).pvalue, 1e-3)
            self.assertEqual(norm.bias.abs().max().item(), 0)

    def test_oneone_scales_and_shifts_are_1(self):
        for norm in self.initialised(bn_initializers.oneone)[:2]:
            self.assertEqual(set(norm.weight.tolist()) | set(norm.bias.tolist()), {1.0})

    def test_other_layers_are_not_changed(self):
        layer = nn.Linear(2, 2)
        before = layer.weight.clone()
        layer.apply(bn_initializers.uniform).apply(bn_initializers.fixed)
        self.assertTrue(torch.equal(layer.weight, before))
