"""The residual networks for ImageNet compared with those of torchvision."""

import torch
from torch import nn
from torchvision.models import resnet

from foundations.model_hparams import ModelHparams
from models import imagenet_resnet, registry
from testing.test_case import TestCase


def hparams(model_name: str, act_fun: str = "relu") -> ModelHparams:
    return ModelHparams(model_name, "kaiming_normal", "uniform", act_fun)


class ImagenetResnetTest(TestCase):
    def test_the_tensors_are_those_of_torchvision_with_a_prefix(self):
        for depth in (18, 34, 50, 101, 152):
            with torch.device("meta"):
                theirs = getattr(resnet, f"resnet{depth}")().state_dict()
            ours = registry.meta_model(hparams(f"imagenet_resnet_{depth}")).state_dict()
            expected = {f"model.{name}": value.shape for name, value in theirs.items()}
            self.assertEqual({name: value.shape for name, value in ours.items()}, expected)

    def test_outputs_agree_with_torchvision_on_images_of_any_size(self):
        model = registry.get(hparams("imagenet_resnet_18"), seed=1).eval()
        theirs = resnet.resnet18()
        theirs.load_state_dict({name.removeprefix("model."): value for name, value in model.state_dict().items()})
        for size in (32, 64):
            x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                torch.testing.assert_close(model(x), theirs.eval()(x), rtol=0, atol=0)

    def test_networks_with_bottlenecks_and_other_widths_run(self):
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for name in ("imagenet_resnet_50", "imagenet_resnet_50_24", "imagenet_resnet_18_8"):
            model = registry.get(hparams(name), outputs=10, seed=1).eval()
            with torch.no_grad():
                outputs = model(x)
            self.assertEqual(outputs.shape, (1, 10))
            self.assertTrue(outputs.isfinite().all())

    def test_a_wide_network_differs_only_in_its_number_of_filters(self):
        for name in ("imagenet_resnet_18", "imagenet_resnet_50"):
            wide, plain = (dict(registry.meta_model(hparams(member)).named_modules()) for member in (f"{name}_128", name))
            self.assertEqual([(key, type(module)) for key, module in wide.items()], [(key, type(module)) for key, module in plain.items()])
            for key, module in plain.items():
                for field in ("kernel_size", "stride", "padding", "dilation", "groups"):
                    self.assertEqual(getattr(wide[key], field, None), getattr(module, field, None), f"{name} {key} {field}")

    def test_another_activation_function_replaces_every_relu(self):
        model = registry.meta_model(hparams("imagenet_resnet_50", "tanh"))
        self.assertFalse(any(isinstance(module, nn.ReLU) for module in model.modules()))
        blocks = sum(isinstance(module, resnet.Bottleneck) for module in model.modules())
        self.assertEqual(sum(isinstance(module, imagenet_resnet.Activation) for module in model.modules()), blocks + 1)

    def test_another_activation_function_is_computed(self):
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        model = registry.get(hparams("imagenet_resnet_18_8", "silu"), outputs=10, seed=1).eval()
        plain = registry.get(hparams("imagenet_resnet_18_8"), outputs=10, seed=1).eval()
        for module in list(plain.modules()):
            if hasattr(module, "relu"):
                module.relu = nn.SiLU()
        with torch.no_grad():
            torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)

    def test_the_last_layer_is_the_output_layer(self):
        model = registry.meta_model(hparams("imagenet_resnet_18"))
        self.assertEqual(model.output_layer_names, ["model.fc.weight", "model.fc.bias"])
        self.assertEqual(len(model.prunable_layer_names), 21)  # 20 convolutions, including three in shortcuts, and one linear layer
