"""The Boruta procedure selects planted informative inputs, and the mask of a dataset is computed once."""

import functools
import os
from unittest import mock

import numpy as np
import torch

from datasets import boruta, digits
from foundations.errors import ConfigError
from platforms.platform import get_platform
from testing import dataset_files
from testing.test_case import TestCase

quick = functools.partial(boruta.select_features, trees=15, iterations=30)


def plant(seed: int = 0, examples: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Examples of three classes, their labels and the mask of informative columns.

    In random order: columns whose mean depends on the class, a copy of one of them, noise and constants.
    """
    random = np.random.RandomState(seed)
    labels = random.randint(0, 3, examples)
    informative = random.randn(examples, 4) + 2 * random.randn(3, 4)[labels]
    noise = random.randn(examples, 8)
    columns = np.hstack([informative, informative[:, :1], noise, np.full((examples, 3), 0.3)])
    order = random.permutation(columns.shape[1])
    return torch.from_numpy(columns[:, order]).float(), torch.from_numpy(labels), torch.from_numpy(order < 5)


class TestSelect(TestCase):
    def test_planted_informative_columns_are_selected_including_redundant_ones(self):
        for seed in range(2):
            with self.subTest(seed=seed):
                examples, labels, planted = plant(seed)
                self.assertEqual(quick(examples, labels, seed).tolist(), planted.tolist())

    def test_few_columns_get_several_shadows_each(self):
        examples, labels, planted = plant()
        chosen = torch.cat([planted.nonzero()[:1, 0], (~planted & (examples.std(0) > 0.1)).nonzero()[:1, 0]])
        self.assertEqual(quick(examples[:, chosen], labels, 0).tolist(), [True, False])

    def test_hardly_any_column_is_informative_about_random_labels(self):
        examples, labels, _ = plant()
        shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
        self.assertLessEqual(quick(examples, shuffled, 0).sum(), 2)  # of 13 that vary; with few examples, some are selected by chance

    def test_an_input_with_significantly_few_hits_is_removed_from_the_forests(self):
        # n misses in a row have probability 0.5^n under fair coin tosses. Bonferroni: four columns, forty rounds and two sides.
        rounds = self.rounds_with(lambda _: [True, False, True, False], iterations=40)
        self.assertEqual(next(n for n in range(99) if 0.5**n < 0.01 / (2 * 4 * 40)), 15)
        self.assertEqual(rounds, ([True, False, True, False], 15))

    def test_undecided_inputs_are_decided_by_the_majority_of_the_rounds(self):
        kept, count = self.rounds_with(lambda place: [place % 3 != 0, place % 3 == 0, place % 2 == 0, False], iterations=40)
        self.assertEqual((kept, count), ([True, False, True, False], 40))

    def rounds_with(self, outcome, **options) -> tuple[list[bool], int]:
        """The mask for given hits of four columns, a list for each round, and the number of rounds."""
        examples = torch.arange(4.0) + torch.arange(8.0)[:, None]
        rounds = []

        def beats_shadows(columns, *_):
            rounds.append(len(columns))
            present = columns[0].astype(int)
            return np.array(outcome(len(rounds)))[present]

        with mock.patch.object(boruta, "_beats_shadows", beats_shadows):
            return boruta.select_features(examples, torch.arange(8) % 2, 0, **options).tolist(), len(rounds)

    def test_constant_inputs_need_no_forest(self):
        with mock.patch("sklearn.ensemble.RandomForestClassifier", side_effect=AssertionError):
            self.assertEqual(boruta.select_features(torch.full((9, 4), 0.1), torch.arange(9) % 2, 0).tolist(), [False] * 4)

    def test_the_result_depends_on_the_seed_but_not_on_the_number_of_cores(self):
        examples, labels, _ = plant(examples=60)  # with so few examples, hits depend on chance
        real = boruta._beats_shadows

        def hits(seed: int, cores: str) -> list[list[bool]]:
            """For each round, which columns are more important than all shadows."""
            rounds = []
            record = mock.patch.object(boruta, "_beats_shadows", lambda *given: rounds.append(real(*given)) or rounds[-1])
            with record, mock.patch.object(boruta, "MIN_PARALLEL_SIZE", 0), mock.patch.dict(os.environ, LOKY_MAX_CPU_COUNT=cores):
                quick(examples, labels, seed, trees=4, iterations=10)
            return np.array(rounds).tolist()

        self.assertEqual(hits(0, "1"), hits(0, "2"))
        self.assertEqual(hits(0, "2"), hits(0, "2"))
        self.assertNotEqual(hits(0, "1"), hits(1, "1"))


class TestMask(TestCase):
    truth = torch.arange(64) % 3 == 0

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "boruta", "digits.json")

    def test_informative_pixels_of_digits_are_in_the_middle(self):
        with mock.patch.object(boruta, "select_features", quick), mock.patch.object(boruta, "MAX_EXAMPLES", 500):
            informative = boruta.mask("digits").view(8, 8)
        self.assertEqual((informative.dtype, informative[0, 0].item()), (torch.bool, False))
        self.assertFalse(informative[:, 0].any())
        self.assertTrue(informative[2:6, 2:6].all())

    def test_the_mask_uses_a_subsample_of_the_training_set(self):
        train = digits.Dataset.load(train=True)
        pairs = {(*image.flatten().tolist(), label.item()) for image, label in zip(*train, strict=True)}
        replaced = mock.patch.object(boruta, "select_features", return_value=self.truth)
        with replaced as select, mock.patch.object(boruta, "MAX_EXAMPLES", 100):
            boruta.mask("digits")
        examples, labels = select.call_args.args[:2]
        self.assertEqual((examples.shape, labels.shape), ((100, 64), (100,)))
        self.assertLessEqual({(*image.tolist(), label.item()) for image, label in zip(examples, labels, strict=True)}, pairs)

    def test_a_mask_is_computed_once(self):
        with mock.patch.object(boruta, "select_features", return_value=self.truth):
            first = boruta.mask("digits")
        with mock.patch.object(boruta, "select_features", side_effect=AssertionError):
            second = boruta.mask("digits")
        self.assertEqual(self.files(), [os.path.join("boruta", "digits.json")])
        self.assertTrue(torch.equal(first, self.truth) and torch.equal(second, self.truth))
        self.assertEqual(second.dtype, torch.bool)

    def test_a_damaged_file_is_named_in_one_line_and_not_overwritten(self):
        damages = ["", "[true, false", "[true]", "[" + "1, " * 63 + "0]", '{"mask": 1}', "[" * 10**5, b"\xff\xfe", "null"]
        for damage in damages:
            for use in (boruta.mask, functools.partial(boruta.check, inputs=64)):
                with self.subTest(damage=damage[:20]):
                    get_platform().write(self.path, damage)
                    with mock.patch.object(boruta, "select_features", side_effect=AssertionError), self.assertRaises(ConfigError) as caught:
                        use("digits")
                    self.assertRegex(str(caught.exception), f"^{self.path} .*; delete it")
                    self.assertNotIn("\n", str(caught.exception))

    def test_a_folder_with_the_name_of_the_file_is_named_in_one_line(self):
        os.makedirs(self.path)
        with self.assertRaisesRegex(ConfigError, f"^{self.path} cannot be read .*; delete it"):
            boruta.mask("digits")

    def test_an_unknown_dataset_is_refused_with_the_list_of_image_datasets(self):
        for use in (boruta.mask, functools.partial(boruta.check, inputs=64)):
            for name in ("digitz", "teacher", "../digits"):
                with self.subTest(name=name), self.assertRaises(ConfigError) as caught:
                    use(name)
                self.assertRegex(str(caught.exception), f"^--boruta: '{name}' is not known.*valid: .*digits.*mnist")
                self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(ConfigError, "did you mean 'digits'"):
            boruta.check("digitz", 64)

    def test_images_with_another_size_than_the_inputs_are_refused(self):
        boruta.check("digits", 64)
        with self.assertRaisesRegex(ConfigError, "^--boruta: .*mnist.* 784 values.* 64$"):
            boruta.check("mnist", 64)

    def test_every_image_dataset_can_mask_networks_with_its_number_of_inputs(self):
        for name, size in (("digits", 64), ("mnist", 784), ("fashion_mnist", 784), ("cifar10", 3072)):
            boruta.check(name, size)

    def test_images_from_files_are_used(self):
        dataset_files.write_idx(os.environ["EC_DATASET_ROOT"], "FashionMNIST", train=4)
        with mock.patch.object(boruta, "select_features", return_value=torch.ones(784, dtype=torch.bool)) as select:
            self.assertEqual(boruta.mask("fashion_mnist").sum().item(), 784)
        images, labels, _ = select.call_args.args
        self.assertEqual((images.shape, labels.shape), ((4, 784), (4,)))

    def test_check_computes_and_writes_nothing(self):
        with mock.patch.object(boruta, "select_features", side_effect=AssertionError):
            boruta.check("digits", 64)
        self.assertEqual(self.files(), [])
