"""The syntax of `--datagen`, and the queries that it generates."""

from unittest import mock

import torch

from datasets.datagen import registry
from datasets.datagen.gaussian import Gaussian
from datasets.image_registry import registered_images
from foundations.errors import ConfigError
from foundations.seeds import derive
from testing.test_case import TestCase


class ParseTest(TestCase):
    def test_queries_that_are_larger_than_the_memory_are_refused(self):
        with mock.patch("platforms.base.Platform.memory_bytes", 8 * 3 * 100):
            self.assertEqual(registry.resolve("random:100", 3), "random:100")
            for datagen, samples in (("random:101", None), ("grid:60+random:60", None), ("random", 101), ("random", None)):
                with self.assertRaisesRegex(ConfigError, "--datagen: the queries of .* need .* GB; valid: up to"):
                    registry.resolve(datagen, 3, samples)

    def test_policies_are_parsed_with_their_counts(self):
        self.assertEqual(registry.parse("digits:100+random:4000"), {"digits": 100, "random": 4000})
        self.assertEqual(registry.parse("random"), {"random": None})

    def test_the_order_does_not_matter(self):
        self.assertEqual(list(registry.parse("random:5+digits").items()), list(registry.parse("digits+random:5").items()))

    def test_an_unknown_policy_is_refused_with_the_nearest_name(self):
        with self.assertRaisesRegex(
            ConfigError, "--datagen: 'randm' is not known, did you mean 'random'.*biased, .*digits, .*mosaic, normal, random"
        ):
            registry.parse("digits+randm")

    def test_an_empty_part_is_refused(self):
        for text in ("", "digits+", "+random", "digits++random"):
            with self.assertRaisesRegex(ConfigError, "--datagen"):
                registry.parse(text)

    def test_a_policy_that_occurs_twice_is_refused(self):
        with self.assertRaisesRegex(ConfigError, "--datagen: random occurs twice"):
            registry.parse("random:5+random:6")

    def test_a_count_is_a_positive_whole_number(self):
        for count in ("", "0", "-1", "1.5", "1e3", "ten", "5:6"):
            with self.assertRaisesRegex(ConfigError, "--datagen: .* is not a count"):
                registry.parse(f"random:{count}")


class ResolveTest(TestCase):
    def test_the_canonical_string_is_sorted_and_has_counts_for_generated_queries(self):
        self.assertEqual(registry.resolve("random+digits", 64), f"digits+random:{registry.DEFAULT_COUNT}")

    def test_resolving_twice_changes_nothing(self):
        once = registry.resolve("random+digits:100", 64)
        self.assertEqual(registry.resolve(once, 64), once)

    def test_policies_without_a_count_share_the_samples(self):
        self.assertEqual(registry.resolve("random", 64, 50), "random:50")
        self.assertEqual(registry.resolve("random+digits", 64, 1500), "digits+random:63")
        self.assertEqual(registry.resolve("random+digits:100", 64, 150), "digits:100+random:50")

    def test_samples_that_agree_with_the_counts_change_nothing(self):
        self.assertEqual(registry.resolve("digits:100+random:50", 64, 150), "digits:100+random:50")
        self.assertEqual(registry.resolve("digits", 64, 1437), "digits")

    def test_samples_that_contradict_the_counts_are_refused_with_the_valid_number(self):
        with self.assertRaisesRegex(ConfigError, "--samples: 151 does not fit --datagen digits:100.random:50; valid: 150$"):
            registry.resolve("digits:100+random:50", 64, 151)
        with self.assertRaisesRegex(ConfigError, "valid: 1437$"):
            registry.resolve("digits", 64, 1000)

    def test_samples_must_suffice_for_one_query_of_every_policy_without_a_count(self):
        self.assertEqual(registry.resolve("digits+random", 64, 1438), "digits+random:1")
        with self.assertRaisesRegex(ConfigError, "--samples: 1437 does not fit .*; valid: 1438 or more"):
            registry.resolve("digits+random", 64, 1437)

    def test_images_with_another_size_than_the_inputs_of_the_teacher_are_refused(self):
        with self.assertRaisesRegex(ConfigError, "--datagen: digits generates queries of 64 values; the teacher takes 784"):
            registry.resolve("digits+random", 784)
        with self.assertRaisesRegex(ConfigError, "--datagen: mnist generates queries of 784 values; the teacher takes 3"):
            registry.resolve("mnist", 3)

    def test_noise_and_grids_work_for_every_teacher(self):
        for name in ("random", "uniform", "grid"):
            self.assertEqual(registry.resolve(f"{name}:5", 3), f"{name}:5")

    def test_variations_work_for_teachers_trained_on_images_only(self):
        canonical = f"biased:{registry.DEFAULT_COUNT}+mosaic:30"
        self.assertEqual(registry.resolve("mosaic:30+biased", 64, dataset_name="digits"), canonical)
        with self.assertRaisesRegex(ConfigError, "--datagen: biased needs a teacher that was trained on images"):
            registry.resolve("mosaic:30+biased", 64, dataset_name="teacher")

    def test_every_image_dataset_is_a_policy(self):
        for name, module in registered_images.items():
            self.assertEqual(registry.resolve(name, module.Dataset.shape()[0]), name)

    def test_a_count_above_the_number_of_images_is_refused(self):
        self.assertEqual(registry.resolve("digits:1437", 64), "digits:1437")
        with self.assertRaisesRegex(ConfigError, "--datagen: digits has 1437 queries, fewer than 1438; valid: up to 1437"):
            registry.resolve("digits:1438", 64)


class ParametersTest(TestCase):
    def test_a_policy_has_its_parameters_and_then_its_count(self):
        for text, canonical in (
            ("box:-1:1", "box:-1:1:4000"),
            ("box:-1.0:1e0:50", "box:-1:1:50"),
            ("normal:.5", "normal:0.5:4000"),
            ("box:0:1:5+box:0:2:5+normal:1e30:5", "box:0:1:5+box:0:2:5+normal:1e30:5"),
        ):
            self.assertEqual(registry.resolve(text, 3), canonical)
            self.assertEqual(registry.resolve(canonical, 3), canonical)

    def test_the_parameters_are_the_bounds_and_the_standard_deviation(self):
        box = registry.generate("box:2:3:4000", True, 2, seed=1)
        self.assertTrue(((box >= 2) & (box <= 3)).all())
        torch.testing.assert_close(box.mean(0), torch.full((2,), 2.5), atol=0.02, rtol=0)
        normal = registry.generate("normal:7:4000", True, 2, seed=1)
        torch.testing.assert_close(normal.std(0), torch.full((2,), 7.0), atol=0.3, rtol=0)

    def test_missing_and_wrong_parameters_are_refused_with_the_way_to_write_them(self):
        for text, message in (
            ("box", "'box' is incomplete; valid: box:LOW:HIGH or box:LOW:HIGH:COUNT, with finite numbers"),
            ("box:1", "'box:1' is incomplete"),
            ("box:a:b", "'box:a:b' is incomplete"),
            ("box:0:inf", "'box:0:inf' is incomplete"),
            ("box:1:1", "'box:1:1' is invalid: the first bound must be less than the second"),
            ("normal:0", "'normal:0' is invalid: the standard deviation must be more than 0"),
            ("normal:1:0", "'0' is not a count in 'normal:1:0'.*such as normal:1:4000"),
            ("box:0:1:2:3", "'2:3' is not a count"),
            ("box:0:1+box:0:1.0", "box:0:1 occurs twice"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, f"--datagen: {message}"):
                registry.parse(text)


class MakeTest(TestCase):
    def make(self, datagen: str, train: bool = True, seed: int = 0) -> torch.Tensor:
        return registry.generate(datagen, train, 64, seed, "digits")

    def test_the_number_of_queries_is_the_sum_of_the_counts(self):
        self.assertEqual(self.make("digits:100+random:50").shape, (150, 64))
        self.assertEqual(self.make("digits+random:63").shape, (1500, 64))

    def test_the_same_seed_gives_the_same_queries(self):
        everything = "biased:10+digits:10+grid:10+mosaic:10+random:10+uniform:10"
        self.assertTrue(torch.equal(self.make(everything), self.make(everything)))
        self.assertEqual(self.make(everything).shape, (60, 64))

    def test_the_random_stream_depends_on_seed_and_policy_and_training_or_test(self):
        for train in (True, False):
            generator = torch.Generator().manual_seed(derive(7, "queries", "random", train))
            queries = self.make("random:12", train, seed=7)
            self.assertTrue(torch.equal(queries, torch.randn(len(queries), 64, generator=generator)))

    def test_another_seed_gives_other_queries(self):
        for datagen in ("digits:10", "random:10", "uniform:10", "grid:10", "biased:10", "mosaic:10"):
            self.assertFalse(torch.equal(self.make(datagen), self.make(datagen, seed=1)))

    def test_the_order_of_the_policies_does_not_matter(self):
        self.assertTrue(torch.equal(self.make("random:10+digits:10"), self.make("digits:10+random:10")))

    def test_each_policy_has_its_own_random_stream(self):
        both = self.make("digits:10+random:20")
        self.assertTrue(torch.equal(both[:10], self.make("digits:10")))
        self.assertTrue(torch.equal(both[10:], self.make("random:20")))

    def test_two_policies_of_the_same_class_generate_different_queries(self):
        with mock.patch.dict(registry.registered_policies, {"noise": Gaussian()}):
            both = self.make("noise:10+random:10")
        self.assertFalse((both[:10] == both[10:]).any())

    def test_the_count_of_a_policy_does_not_change_the_queries_of_others(self):
        self.assertTrue(torch.equal(self.make("digits:10+random:20")[:10], self.make("digits:10+random:500")[:10]))
        self.assertTrue(torch.equal(self.make("digits:10+random:20")[10:], self.make("digits:30+random:20")[30:]))

    def test_training_and_test_have_no_common_queries(self):
        for datagen in ("digits:50+random:50", "uniform:50", "grid:64", "biased:500", "mosaic:500"):
            train, test = ({tuple(query) for query in self.make(datagen, part).tolist()} for part in (True, False))
            self.assertTrue(train.isdisjoint(test))

    def test_the_global_random_state_is_neither_used_nor_changed(self):
        torch.manual_seed(0)
        before, first = torch.get_rng_state(), self.make("digits:10+random:10")
        self.assertTrue(torch.equal(torch.get_rng_state(), before))
        torch.manual_seed(1)
        self.assertTrue(torch.equal(self.make("digits:10+random:10"), first))
