"""Students: N independent networks in one model."""

import copy
import itertools
import os

import torch
from torch import nn

from datasets.base import DataLoader
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import activation_functions, registry, students
from testing.test_case import TestCase
from training.test.test_train import class_loader, hparams, network, regression_loader
from training.train import train

NETWORKS, BATCH = 3, 7


def build(model_name: str = "students_mlp(3)_4_6_5_2", **options) -> students.Model:
    return network(model_name, **options)


def alone(stack: students.Model, i: int) -> nn.Sequential:
    """Student i as plain layers with copies of its weights."""
    made = nn.Sequential()
    for stacked in (*stack.fc_layers, stack.fc):
        _, inputs, outputs = stacked.weight.shape
        layer = nn.Linear(inputs, outputs, dtype=torch.float64)
        layer.weight.data, layer.bias.data = stacked.weight.data[i].T.clone(), stacked.bias.data[i, 0].clone()
        made.append(layer)
        made.append(_Activation(stack.act_fun))
    return made[:-1]


class _Activation(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.function = activation_functions.get(name)

    def forward(self, x):
        return self.function(x)


class NameTest(TestCase):
    def test_a_name_gives_the_number_of_students_and_their_sizes(self):
        valid = {
            "students_digits_lenet(10)_64": (10, [64, 64, 10]),
            "students_mlp(3)_2_5_1": (3, [2, 5, 1]),
            "students_mnist_lenet(2)_8_4": (2, [784, 8, 4, 10]),
            "students_mnist_lenet_20": (1, [784, 20, 10]),
        }
        for name, (networks, sizes) in valid.items():
            model = build(name)
            self.assertEqual((model.networks, model.sizes), (networks, sizes))

    def test_other_names_are_not_valid(self):
        invalid = ["students_digits_lenet(0)_4", "students_digits_lenet()_4", "students_digits_lenet(-1)_4", "students_digits_lenet(1.5)_4"]
        invalid += ["students_digits_lenet(3)", "students_digits_lenet(3)_0", "students_digits_lenet(3)_a", "students_digits_lenet(3)64"]
        invalid += ["students_mlp(3)_2_1", "students_lenet(3)_4", "students_(3)_4", "digits_lenet(3)_4", "students_digits_lenet_4(3)"]
        for name in invalid:
            self.assertFalse(students.Model.is_valid_model_name(name), name)

    def test_every_fully_connected_family_has_students(self):
        for rule in ("students_digits_lenet(N)_P_Q_...", "students_mnist_lenet(N)_P_Q_...", "students_mlp(N)_D_P_Q_..._O"):
            self.assertIn(rule, students.Model.name_rules())

    def test_the_teacher_determines_outputs_that_the_name_does_not_contain(self):
        self.assertEqual(build("students_digits_lenet(2)_8", outputs=3).sizes, [64, 8, 3])
        with self.assertRaisesRegex(ConfigError, "1 outputs; this dataset needs 3"):
            build("students_mlp(2)_2_5_1", outputs=3)

    def test_the_default_teacher_is_the_default_model_of_the_family(self):
        for family in ("digits_lenet", "mnist_lenet", "cifar_lenet", "mlp"):
            defaults = registry.get_default_hparams(f"students_{family}")
            self.assertEqual(defaults.dataset_hparams.dataset_name, "teacher")
            self.assertEqual(defaults.dataset_hparams.teacher_name, registry.resolve(family))
            stack, teacher = build(f"students_{family}"), build(family)
            self.assertEqual((stack.sizes[0], len(stack.sizes), stack.sizes[-1]), (teacher.sizes[0], len(teacher.sizes), teacher.sizes[-1]))
            self.assertTrue(all(wide >= 2 * narrow for wide, narrow in zip(stack.sizes[1:-1], teacher.sizes[1:-1], strict=True)))


class StackTest(TestCase):
    def setUp(self):
        super().setUp()
        generator = torch.Generator().manual_seed(0)
        self.stack = build()
        self.x = torch.randn(BATCH, 4, dtype=torch.float64, generator=generator)
        self.targets = torch.randn(BATCH, 2, dtype=torch.float64, generator=generator)
        self.classes = torch.randint(0, 2, (BATCH,), generator=generator)
        self.losses = ((self.targets, nn.functional.mse_loss), (self.classes, nn.functional.cross_entropy))

    def test_keys_are_those_of_one_network_and_tensors_have_one_more_axis(self):
        shapes = {name: tuple(value.shape) for name, value in self.stack.state_dict().items()}
        expected = {
            "fc_layers.0.weight": (3, 4, 6),
            "fc_layers.0.bias": (3, 1, 6),
            "fc_layers.1.weight": (3, 6, 5),
            "fc_layers.1.bias": (3, 1, 5),
            "fc.weight": (3, 5, 2),
            "fc.bias": (3, 1, 2),
        }
        self.assertEqual(shapes, expected)
        self.assertEqual(self.stack.prunable_layer_names, ["fc_layers.0.weight", "fc_layers.1.weight", "fc.weight"])
        self.assertEqual(self.stack.output_layer_names, ["fc.weight", "fc.bias"])

    def test_the_outputs_are_those_of_the_separate_networks(self):
        for act_fun in activation_functions.activation_functions:
            stack = build(act_fun=act_fun)
            outputs = stack(self.x)
            self.assertEqual(outputs.shape, (NETWORKS, BATCH, 2))
            for i in range(NETWORKS):
                torch.testing.assert_close(outputs[i], alone(stack, i)(self.x), rtol=1e-12, atol=1e-13)

    def test_images_are_flattened(self):
        torch.testing.assert_close(self.stack(self.x.view(BATCH, 1, 2, 2)), self.stack(self.x), rtol=0, atol=0)

    def test_students_have_different_initial_weights(self):
        self.assertFalse((self.stack.fc.weight[0] == self.stack.fc.weight[1]).any())

    def test_individual_losses_are_the_losses_of_the_separate_networks(self):
        for labels, loss in self.losses:
            losses = self.stack.individual_losses(self.stack(self.x), labels)
            expected = torch.stack([loss(alone(self.stack, i)(self.x), labels) for i in range(NETWORKS)])
            torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-14)

    def test_the_training_loss_is_the_sum_of_the_individual_losses(self):
        for labels, _ in self.losses:
            outputs = self.stack(self.x)
            losses = self.stack.individual_losses(outputs, labels)
            torch.testing.assert_close(self.stack.loss_criterion(outputs, labels), losses[0] + losses[1] + losses[2], rtol=1e-14, atol=0)

    def test_a_ridge_adds_a_share_of_each_loss_whose_gradient_shrinks_the_weights_alone(self):
        stack, (x, y) = build().double(), (torch.randn(BATCH, 4).double(), torch.randn(BATCH, 2).double())
        names = [name for name, _ in stack.named_parameters()]

        def gradients():
            loss = stack.loss_criterion(stack(x), y)
            return loss, dict(zip(names, torch.autograd.grad(loss, list(stack.parameters())), strict=True))

        losses, (plain, before) = stack.individual_losses(stack(x), y).detach(), gradients()
        stack.ridge = 0.25
        self.assertEqual(stack.part(0, 2).ridge, 0.25)
        penalised, after = gradients()
        self.assertAlmostEqual(float(penalised.detach()), 1.25 * float(plain.detach()), places=12)
        squares = sum(layer.weight.square().sum((1, 2)) for layer in (*stack.fc_layers, stack.fc)).detach()
        for name, parameter in stack.named_parameters():
            pull = 2 * 0.25 * (losses / squares)[:, None, None] * parameter.detach()
            torch.testing.assert_close(after[name], before[name] + (pull if name.endswith("weight") else 0))

    def test_layer_vectors_compute_every_neuron_and_can_be_loaded(self):
        stack, other, x = build(), build(), torch.randn(7, 4, dtype=torch.float64)
        first, *_, last = stack.layer_vectors()
        self.assertEqual([tuple(layer.shape) for layer in (first, last)], [(3, 6, 5), (3, 2, 6)])
        one = torch.cat([x, torch.ones_like(x[:, :1])], 1) @ first[1].T
        torch.testing.assert_close(stack.fc_layers[0](x)[1], one)
        other.load_layer_vectors([torch.zeros_like(layer) for layer in stack.layer_vectors()])
        self.assertFalse(other(x).any())
        other.load_layer_vectors(stack.layer_vectors())
        self.assertTrue(torch.equal(other(x), stack(x)))
        other.load_layer_vectors([layer[0] for layer in stack.layer_vectors()])
        self.assertTrue(torch.equal(other(x), stack(x)[:1].expand(3, -1, -1)))

    def test_a_selected_student_agrees_in_forward_loss_and_gradient(self):
        for labels, _ in self.losses:
            self.stack.zero_grad()
            outputs = self.stack(self.x)
            self.stack.loss_criterion(outputs, labels).backward()
            for i in range(NETWORKS):
                student = self.stack.select(i)
                student.loss_criterion(student(self.x), labels).backward()
                torch.testing.assert_close(student(self.x)[0], outputs[i], rtol=1e-12, atol=1e-14)
                expected = self.stack.individual_losses(outputs, labels)[i]
                torch.testing.assert_close(student.loss_criterion(student(self.x), labels), expected, rtol=1e-12, atol=0)
                for ours, whole in zip(student.parameters(), self.stack.parameters(), strict=True):
                    torch.testing.assert_close(ours.grad[0], whole.grad[i], rtol=1e-11, atol=1e-14)

    def test_a_selected_student_is_a_copy(self):
        before = copy.deepcopy(self.stack.state_dict())
        for parameter in self.stack.select(1).parameters():
            parameter.data.zero_()
        for name, value in self.stack.state_dict().items():
            self.assertTrue(torch.equal(value, before[name]))

    def test_a_selected_student_keeps_number_format_and_activation_function(self):
        student = self.stack.select(0)
        self.assertEqual((student.fc.weight.dtype, student.act_fun, student.networks), (torch.float64, "tanh", 1))


class SigmoidTest(TestCase):
    def test_initial_sigmoid_students_compute_the_functions_of_tanh_students(self):
        x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        sigmoid, tanh = (build("students_mlp(3)_4_6_5_2", act_fun=name) for name in ("sigmoid", "tanh"))
        torch.testing.assert_close(sigmoid(x), tanh(x), rtol=1e-5, atol=1e-5)  # drawn in float32

    def test_initial_weights_of_other_activation_functions_are_not_transformed(self):
        softplus, relu = (build("students_mlp(3)_4_6_5_2", act_fun=name) for name in ("softplus", "relu"))
        for ours, theirs in zip(softplus.parameters(), relu.parameters(), strict=True):
            self.assertTrue(torch.equal(ours, theirs))


class PublishedLayoutTest(TestCase):
    """Checkpoints of the published Expand-and-Cluster code: networks are on the last axis, and `fc_layers` contains the output layer."""

    def published(self, sizes: tuple[int, ...] = (4, 6, 5, 2)) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        state = {}
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            state[f"fc_layers.{depth}.fc"] = torch.randn(inputs, outputs, NETWORKS, generator=generator)
            state[f"fc_layers.{depth}.b"] = torch.randn(outputs, NETWORKS, generator=generator)
        return state

    def load(self, state: dict[str, torch.Tensor]) -> students.Model:
        path = os.path.join(self.root, "model_ep9_it0.pth")
        torch.save(state, path)
        return registry.load(path, ModelHparams("students_mlp(3)_4_6_5_2", "kaiming_normal", "uniform", "tanh"))

    def test_a_published_checkpoint_computes_the_published_formula(self):
        state = self.published()
        x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(1))
        hidden = torch.tanh(torch.einsum("bi,ihn->bhn", x, state["fc_layers.0.fc"]) + state["fc_layers.0.b"])
        hidden = torch.tanh(torch.einsum("bin,ihn->bhn", hidden, state["fc_layers.1.fc"]) + state["fc_layers.1.b"])
        expected = torch.einsum("bin,ihn->bhn", hidden, state["fc_layers.2.fc"]) + state["fc_layers.2.b"]
        torch.testing.assert_close(self.load(state)(x), expected.movedim(-1, 0), rtol=1e-5, atol=1e-5)

    def test_the_loaded_tensors_are_contiguous(self):
        for name, value in self.load(self.published()).state_dict().items():
            self.assertTrue(value.is_contiguous(), name)

    def test_a_checkpoint_of_another_shape_is_refused(self):
        for sizes in ((4, 6, 2), (4, 6, 5, 5, 2), (4, 7, 5, 2)):
            with self.assertRaisesRegex(ConfigError, "does not contain the weights of this model"):
                self.load(self.published(sizes))


class TrainingTest(TestCase):
    """Not bit for bit: the matrix product of the first layer sums in another order for one student than for several."""

    def assert_trains_as_alone(self, loader: DataLoader, *optimizer, **changes):
        training_hparams = hparams("14it", *optimizer, **changes)
        stack = build()
        selected = [stack.select(i) for i in range(NETWORKS)]
        before = [parameter.detach().clone() for parameter in stack.parameters()]
        train(training_hparams, stack, loader, f"{self.root}/stack")
        for i, student in enumerate(selected):
            train(training_hparams, student, loader, f"{self.root}/{i}")
            for ours, whole in zip(student.parameters(), stack.parameters(), strict=True):
                torch.testing.assert_close(ours[0], whole[i], rtol=1e-9, atol=1e-11)
        for parameter, start in zip(stack.parameters(), before, strict=True):
            self.assertTrue((parameter.cpu() != start).any())

    def test_training_a_stack_by_sgd_equals_training_each_student_alone(self):
        self.assert_trains_as_alone(regression_loader(), "sgd", 0.1, momentum=0.9, weight_decay=1e-3)

    def test_training_a_stack_by_adam_equals_training_each_student_alone(self):
        self.assert_trains_as_alone(regression_loader(), "adam", 0.02)

    def test_training_a_stack_by_lbfgs_equals_training_each_student_alone(self):
        self.assert_trains_as_alone(regression_loader(), "lbfgs", 1.0)

    def test_training_a_stack_on_classes_equals_training_each_student_alone(self):
        self.assert_trains_as_alone(class_loader(), "adam", 0.02)
