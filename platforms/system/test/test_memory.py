"""The memory of the machine, and memory that is kept for the next step."""

import os
import subprocess
import sys
import unittest
from unittest import mock

from platforms.system import memory
from testing.test_case import TestCase

STEPS = """
import resource, sys, numpy
from platforms.system import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
def step():
    held = [numpy.ones(size << 17) for size in (4, 8, 12, 16)]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 10)
"""


@unittest.skipUnless(memory.keep_freed(), "only glibc has a setting to keep memory")
class TestTotal(TestCase):
    def test_a_container_has_less_memory_than_its_machine(self):
        path = os.path.join(self.root, "memory.max")
        for content, expected in (("4096\n", 4096), ("max\n", None), (f"{2**62}\n", None)):
            with open(path, "w", encoding="ascii") as file:
                file.write(content)
            with mock.patch.object(memory, "CONTAINER_LIMITS", (path,)):
                machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
                self.assertEqual(memory.total.__wrapped__(), expected or machine)


class MemoryTest(TestCase):
    def mapped(self, how: str) -> float:
        """The bytes that are mapped again in each step, of the 40 MiB that it allocates."""
        done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
        return float(done.stdout)

    def test_a_step_reuses_the_memory_of_the_previous_step(self):
        self.assertLess(self.mapped("kept"), 1 << 20)
        self.assertGreater(self.mapped("given back"), 4 << 20)
