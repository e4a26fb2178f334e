"""Seeds: random seeds of runs, and derived seeds of streams."""

import os
import random
import subprocess
import sys

import torch

import EC
from foundations.seeds import NOT_CHOSEN, derive, draw
from testing.test_case import TestCase


class TestDerive(TestCase):
    def test_the_same_seed_and_purpose_give_the_same_stream_in_every_process(self):
        def in_new_process(hash_seed: str) -> int:
            command = "from foundations.seeds import derive; print(derive(5, 'queries', 'digits', True))"
            options = {"env": os.environ | {"PYTHONHASHSEED": hash_seed}, "cwd": os.path.dirname(EC.__file__)}
            return int(subprocess.run([sys.executable, "-c", command], capture_output=True, check=True, **options).stdout)

        self.assertEqual({in_new_process("1"), in_new_process("2")}, {derive(5, "queries", "digits", True)})

    def test_different_seeds_or_purposes_give_different_streams(self):
        purposes = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("b", "a"), (0,), (1,), ("0",), ("a", 1), ("a", 11), ("a1", 1), ("a", True)]
        derived = {derive(seed, *purpose) for seed in range(50) for purpose in purposes}
        self.assertEqual(len(derived), 50 * len(purposes))

    def test_consecutive_seeds_give_streams_that_differ_in_half_of_the_bits(self):
        halves = sum(bin(derive(seed, "x") ^ derive(seed + 1, "x")).count("1") for seed in range(1000)) / 1000
        self.assertAlmostEqual(halves, 63 / 2, delta=0.5)

    def test_derived_seeds_use_the_63_bits_that_generators_accept(self):
        derived = [derive(seed, "x") for seed in range(1000)]
        self.assertGreaterEqual(min(derived), 0)
        self.assertTrue(2**62 < max(derived) < 2**63)
        torch.Generator().manual_seed(max(derived))

    def test_derive_does_not_change_the_global_random_states(self):
        before = random.getstate(), torch.get_rng_state()
        derive(3, "x")
        self.assertEqual(random.getstate(), before[0])
        self.assertTrue(torch.equal(torch.get_rng_state(), before[1]))


class TestDraw(TestCase):
    def test_a_drawn_seed_is_a_valid_seed(self):
        drawn = [draw() for _ in range(1000)]
        self.assertTrue(all(0 <= seed < 2**31 for seed in drawn))
        self.assertNotIn(NOT_CHOSEN, drawn)

    def test_drawn_seeds_do_not_depend_on_global_random_states(self):
        drawn = []
        for _ in range(2):
            random.seed(0)
            torch.manual_seed(0)
            drawn.append([draw() for _ in range(4)])
        self.assertNotEqual(*drawn)
