"""The residual networks for CIFAR-10 compared with their definition in plain functions, and their keys."""

import torch
from torch.nn import functional as F

from foundations.model_hparams import ModelHparams
from models import activation_functions, cifar_resnet, registry
from testing.test_case import TestCase

NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
KEYS_8 = ["conv.weight", *(f"bn.{name}" for name in NORM)]
for block in range(3):
    for layer in (1, 2):
        KEYS_8 += [f"blocks.{block}.conv{layer}.weight", *(f"blocks.{block}.bn{layer}.{name}" for name in NORM)]
    if block:
        KEYS_8 += [f"blocks.{block}.shortcut.0.weight", *(f"blocks.{block}.shortcut.1.{name}" for name in NORM)]
KEYS_8 += ["fc.weight", "fc.bias"]


def build(model_name: str, act_fun: str = "relu") -> cifar_resnet.Model:
    model = registry.get(ModelHparams(model_name, "kaiming_normal", "uniform", act_fun), seed=1).double()
    with torch.no_grad():
        model(torch.randn(16, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))  # changes running statistics
    return model.eval()


def definition(state: dict[str, torch.Tensor], x: torch.Tensor, rounds: int, act_fun: str = "relu") -> torch.Tensor:
    """The outputs of a network with given weights, by its definition."""
    activation = activation_functions.get(act_fun)

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        mean, variance, scale, shift = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(values, mean, variance, scale, shift)

    x = activation(norm("bn", F.conv2d(x, state["conv.weight"], padding=1)))
    for block in range(3 * rounds):
        name, stride = f"blocks.{block}", 2 if block in (rounds, 2 * rounds) else 1
        inner = activation(norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)))
        inner = norm(f"{name}.bn2", F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1))
        if stride == 2:
            x = norm(f"{name}.shortcut.1", F.conv2d(x, state[f"{name}.shortcut.0.weight"], stride=2))
        x = activation(inner + x)
    x = F.avg_pool2d(x, x.shape[-1]).flatten(1)
    return x @ state["fc.weight"].T + state["fc.bias"]


class CifarResnetTest(TestCase):
    def test_outputs_agree_with_the_definition(self):
        x = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for name, rounds, act_fun in (("cifar_resnet_8_4", 1, "relu"), ("cifar_resnet_20_4", 3, "relu"), ("cifar_resnet_14_5", 2, "tanh")):
            model = build(name, act_fun)
            with self.subTest(name), torch.no_grad():
                torch.testing.assert_close(model(x), definition(model.state_dict(), x, rounds, act_fun), rtol=1e-11, atol=1e-12)

    def test_state_dict_keys_are_those_of_openlth(self):
        self.assertEqual(list(build("cifar_resnet_8_4").state_dict()), KEYS_8)

    def test_block_numbers_continue_through_all_segments(self):
        keys = registry.meta_model(ModelHparams("cifar_resnet_20", "kaiming_normal", "uniform")).state_dict()
        self.assertEqual(max(int(key.split(".")[1]) for key in keys if key.startswith("blocks.")), 8)
        self.assertEqual({key.split(".")[1] for key in keys if "shortcut" in key}, {"3", "6"})

    def test_all_kernels_are_prunable_and_the_last_layer_is_the_output_layer(self):
        model = build("cifar_resnet_8_4")
        kernels = [
            name for name in KEYS_8 if "conv" in name or name in ("fc.weight", "blocks.1.shortcut.0.weight", "blocks.2.shortcut.0.weight")
        ]
        self.assertEqual(model.prunable_layer_names, kernels)
        self.assertEqual(model.output_layer_names, ["fc.weight", "fc.bias"])
