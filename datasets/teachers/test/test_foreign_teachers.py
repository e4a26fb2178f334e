"""Run folders of OpenLTH and of the published Expand-and-Cluster code as teachers."""

import math
import os
import shutil
from collections import OrderedDict

import numpy as np
import torch

from datasets import registry
from datasets.teachers import run_folders
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import registry as models
from platforms.platform import get_platform
from testing.test_case import TestCase

OPENLTH = "train_71bc92a970b64a76d7ab7681764b0021"
PUBLISHED = "train_4e06f40307"

# Both programs write all required hyperparameters, and the others if they are not zero, empty or false.
LOG = """Dataset Hyperparameters
    * dataset_name => {dataset_name}
    * batch_size => 128
    * teacher_seed => 7
Model Hyperparameters
    * model_name => {model_name}
    * model_init => kaiming_normal
    * batchnorm_init => uniform
{more}Training Hyperparameters
    * optimizer_name => sgd
    * lr => 0.1
    * training_steps => 40ep
    * gamma => 0.1"""


class Intruder:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self):
        return open, (os.path.join(os.environ["EC_ROOT"], "sprung"), "w")


class ForeignTestCase(TestCase):
    def openlth(self, model_name: str, dataset_name: str, weights: dict[str, torch.Tensor], replicate: int = 1, more: str = "") -> str:
        """Writes a finished run in the format of OpenLTH, and returns its folder."""
        return self.write(os.path.join(OPENLTH, f"replicate_{replicate}", "main"), model_name, dataset_name, weights, more)

    def published(self, model_name: str, dataset_name: str, weights: dict[str, torch.Tensor], act_fun: str) -> str:
        """The same in the format of Expand-and-Cluster, which adds the activation function and pickled hyperparameters."""
        folder = os.path.join(PUBLISHED, "seed_-1", "main")
        self.write(folder, model_name, dataset_name, weights, f"    * act_fun => {act_fun}\n")
        torch.save({"model_hparams": Intruder()}, os.path.join(self.root, folder, "hparams_dict"))
        return folder

    def write(self, folder: str, model_name: str, dataset_name: str, weights: dict[str, torch.Tensor], more: str) -> str:
        folder = os.path.join(self.root, folder)
        os.makedirs(folder)
        get_platform().write(os.path.join(folder, "hparams.log"), LOG.format(dataset_name=dataset_name, model_name=model_name, more=more))
        get_platform().write(os.path.join(folder, "logger"), "test_loss,0,2.3\ntest_loss,40,0.1")
        for step in ("ep0_it0", "ep40_it0"):
            scale = 1 if step == "ep40_it0" else 0
            torch.save(OrderedDict((name, value * scale) for name, value in weights.items()), os.path.join(folder, f"model_{step}.pth"))
        return folder

    def perceptron(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = {"fc_layers.0.weight": (5, 784), "fc_layers.0.bias": (5,), "fc.weight": (3, 5), "fc.bias": (3,)}
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def assert_answers(self, teacher_name: str, seed: int, function):
        """Asserts that the answers of a teacher are those of a perceptron with a given activation function."""
        weights = {name: value.double().numpy() for name, value in self.perceptron().items()}
        dataset = registry.get(DatasetHparams("teacher", 8, teacher_name, seed, "random:20"), seed=1).dataset
        hidden = function(dataset.examples.double().numpy() @ weights["fc_layers.0.weight"].T + weights["fc_layers.0.bias"])
        expected = hidden @ weights["fc.weight"].T + weights["fc.bias"]
        np.testing.assert_allclose(dataset.labels.numpy(), expected, rtol=1e-12, atol=1e-12)


class PerceptronTest(ForeignTestCase):
    def test_a_run_of_openlth_is_a_teacher(self):
        self.openlth("mnist_lenet_5", "mnist", self.perceptron())
        teacher = run_folders.find("71bc92a9", 1)
        self.assertEqual((teacher.name, teacher.inputs, teacher.outputs, teacher.dataset_name), (OPENLTH, 784, 3, "mnist"))
        self.assertEqual(teacher.model_hparams, ModelHparams("mnist_lenet_5", "kaiming_normal", "uniform"))
        self.assert_answers(OPENLTH, 1, lambda x: np.maximum(x, 0))

    def test_a_run_of_expand_and_cluster_is_a_teacher_and_its_objects_are_not_unpickled(self):
        self.published("mnist_lenet_5", "mnist", self.perceptron(), "tanh")
        teacher = run_folders.find(PUBLISHED.removeprefix("train_"), -1)
        self.assertEqual((teacher.name, teacher.inputs, teacher.outputs), (PUBLISHED, 784, 3))
        self.assertEqual(teacher.model_hparams.act_fun, "tanh")
        self.assert_answers(PUBLISHED, -1, np.tanh)
        self.assertFalse(os.path.exists(os.path.join(self.root, "sprung")))

    def test_a_frozen_run_is_a_teacher(self):
        self.openlth("mnist_lenet_5", "mnist", self.perceptron(), more="    * others_frozen => True\n    * output_frozen => True\n")
        self.assertTrue(run_folders.find(OPENLTH, 1).model_hparams.output_frozen)
        self.assert_answers(OPENLTH, 1, lambda x: np.maximum(x, 0))

    def test_a_replicate_is_a_seed(self):
        self.openlth("mnist_lenet_5", "mnist", self.perceptron(), replicate=4)
        with self.assertRaisesRegex(ConfigError, f"--teacher_seed: {OPENLTH} has no seed 1; valid: 4$"):
            run_folders.find(OPENLTH, 1)

    def test_an_interrupted_run_is_refused(self):
        folder = self.openlth("mnist_lenet_5", "mnist", self.perceptron())
        os.remove(os.path.join(folder, "logger"))
        with self.assertRaisesRegex(ConfigError, "has not finished"):
            self.assert_answers(OPENLTH, 1, np.tanh)
        os.remove(os.path.join(folder, "model_ep40_it0.pth"))
        with self.assertRaisesRegex(ConfigError, f"{folder} contains no model_ep"):
            run_folders.find(OPENLTH, 1)

    def test_a_damaged_log_is_named(self):
        folder = self.openlth("mnist_lenet_5", "mnist", self.perceptron())
        path = os.path.join(folder, "hparams.log")
        for content in ("", "Model Hyperparameters", LOG.partition("Model")[0], "    * model_name => mnist_lenet_5", "\xff"):
            get_platform().write(path, content.encode("latin-1"))
            with self.assertRaisesRegex(ConfigError, f"{path} does not contain the names of the model and the dataset"):
                run_folders.find(OPENLTH, 1)

    def test_an_unknown_model_is_named_with_the_file(self):
        folder = self.openlth("mnist_conv_C16_M_F32", "mnist", self.perceptron())
        with self.assertRaisesRegex(ConfigError, f"^--teacher_name: {folder}/hparams.log: 'mnist_conv_C16_M_F32' is not a model"):
            run_folders.find(OPENLTH, 1)

    def test_weights_of_another_model_are_refused(self):
        folder = self.openlth("cifar_vgg_11", "mnist", self.perceptron() | {"fc.bias": torch.zeros(())})
        with self.assertRaisesRegex(ConfigError, f"{folder}/model_ep40_it0.pth does not contain the weights of this model"):
            run_folders.find(OPENLTH, 1)

    def test_students_learn_from_it(self):
        self.openlth("mnist_lenet_5", "mnist", self.perceptron())
        options = (
            "--teacher_name=71bc92a9",
            "--teacher_seed=1",
            "--datagen=random:40",
            "--training_steps=2it",
            "--global_seed=1",
            "--quiet",
        )
        status, _, err = self.command("train", "--default_hparams=students_mnist_lenet(2)_9", *options)
        self.assertEqual((status, err), (0, ""))
        weights = [name for name in self.files() if name.endswith("model_ep2_it0.pth") and OPENLTH not in name]
        self.assertEqual(len(weights), 1)


class ConvolutionalTest(ForeignTestCase):
    def setUp(self):
        super().setUp()
        self.model = models.get(ModelHparams("cifar_resnet_8_4", "kaiming_normal", "uniform"), outputs=3, seed=5)
        self.openlth("cifar_resnet_8_4", "cifar10", self.model.state_dict())

    def assert_sees_images(self, model: torch.nn.Module, queries: int, *shape: int):
        """Asserts that the answers of the teacher are the outputs of a model for images of a given shape."""
        teacher = run_folders.find(OPENLTH, 1)
        self.assertEqual((teacher.inputs, teacher.outputs), (math.prod(shape), 3))
        dataset = registry.get(DatasetHparams("teacher", 8, OPENLTH, 1, f"random:{queries}"), seed=1).dataset
        self.assertEqual(dataset.examples.shape, (queries, math.prod(shape)))
        with torch.no_grad():
            expected = model.double().eval()(dataset.examples.double().view(queries, *shape))
        torch.testing.assert_close(dataset.labels, expected, rtol=1e-10, atol=1e-12)

    def test_a_convolutional_run_is_a_teacher_for_images(self):
        self.assert_sees_images(self.model, 20, 3, 32, 32)

    def test_a_run_on_imagenet_is_a_teacher_without_the_files_of_imagenet(self):
        model = models.get(ModelHparams("imagenet_resnet_18_2", "kaiming_normal", "uniform"), outputs=3, seed=5)
        shutil.rmtree(os.path.join(self.root, OPENLTH))
        self.openlth("imagenet_resnet_18_2", "imagenet", model.state_dict())
        self.assert_sees_images(model, 6, 3, 224, 224)

    def test_images_of_unknown_size_are_refused(self):
        shutil.rmtree(os.path.join(self.root, OPENLTH))
        self.openlth("cifar_resnet_8_4", "places", self.model.state_dict())
        with self.assertRaisesRegex(ConfigError, "the size of the images of places is unknown; valid: digits, .*cifar10, imagenet$"):
            run_folders.find(OPENLTH, 1)

    def test_extract_refuses_convolutional_teachers(self):
        options = (f"--teacher_name={OPENLTH}", "--teacher_seed=1", "--datagen=random:40")
        status, _, err = self.command("extract", "--default_hparams=students_mlp(3)_3072_9_3", *options)
        self.assertEqual(status, 2)
        self.assertIn("--teacher_name: cifar_resnet_8_4 is convolutional; extract recovers fully connected networks", err)
