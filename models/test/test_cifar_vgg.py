"""VGG compared with the layers of torchvision, and its keys."""

import torch
from torch import nn
from torchvision.models import vgg

from foundations.model_hparams import ModelHparams
from models import cifar_vgg, registry
from testing.test_case import TestCase

CONFIGURATIONS = {11: "A", 13: "B", 16: "D", 19: "E"}  # of the paper's table
KEYS = ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]
PLACES_11 = [0, 2, 4, 5, 7, 8, 10, 11]  # of the convolutions, with a pooling before all stages but the first
PLACES_16 = [0, 1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]


def build(depth: int, act_fun: str = "relu") -> cifar_vgg.Model:
    return registry.get(ModelHparams(f"cifar_vgg_{depth}", "kaiming_normal", "uniform", act_fun), seed=1).eval()


def reference(model: cifar_vgg.Model, depth: int) -> nn.Sequential:
    """The layers of torchvision with the same configuration and the weights of a model; the last 2x2 pixels are averaged."""
    layers = vgg.make_layers(vgg.cfgs[CONFIGURATIONS[depth]], batch_norm=True)
    theirs = [module for module in layers if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    ours = [module for module in model.layers.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    for target, source in zip(theirs, ours, strict=True):
        target.load_state_dict(source.state_dict())
    return nn.Sequential(*layers[:-1], nn.AvgPool2d(2), nn.Flatten(), model.fc).eval()


class CifarVggTest(TestCase):
    def test_outputs_agree_with_the_layers_of_torchvision_for_every_depth(self):
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for depth in CONFIGURATIONS:
            model = build(depth)
            with self.subTest(depth), torch.no_grad():
                torch.testing.assert_close(model(x), reference(model, depth)(x), rtol=1e-4, atol=1e-5)

    def test_the_activation_function_is_that_of_the_hyperparameters(self):
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        model = build(11, "silu")
        plain = reference(model, 11)
        silent = nn.Sequential(*(nn.SiLU() if isinstance(module, nn.ReLU) else module for module in plain))
        with torch.no_grad():
            torch.testing.assert_close(model(x), silent(x), rtol=1e-4, atol=1e-5)

    def test_state_dict_keys_are_those_of_openlth(self):
        for depth, places in ((11, PLACES_11), (16, PLACES_16)):
            keys = [f"layers.{place}.{key}" for place in places for key in KEYS]
            model = registry.meta_model(ModelHparams(f"cifar_vgg_{depth}", "kaiming_normal", "uniform"))
            self.assertEqual(list(model.state_dict()), [*keys, "fc.weight", "fc.bias"])
            prunable = [f"layers.{place}.conv.weight" for place in places]
            self.assertEqual(model.prunable_layer_names, [*prunable, "fc.weight"])
            self.assertEqual(model.output_layer_names, ["fc.weight", "fc.bias"])
