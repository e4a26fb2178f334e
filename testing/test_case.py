"""The base class of tests: a temporary folder for all files, and the command line without a shell."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import unittest
from unittest import mock

import torch

import EC
from platforms.base import installed
from platforms.local import Platform


class CpuPlatform(Platform):
    """The local machine without its GPUs, so that tests compare results of one device."""

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")


def need(missing: str | None, variable: str) -> None:
    """Skips a test, or in `setUpClass` its class, if a requirement is missing; fails instead if an environment variable is set.

    Args:
        missing: the reason why the requirement is missing; None if it is not.
        variable: the environment variable that demands it, such as EC_REQUIRE_SLURM.
    """
    if missing and os.environ.get(variable):
        raise AssertionError(missing)
    if missing:
        raise unittest.SkipTest(missing)


class TestCase(unittest.TestCase):
    """A test whose platform reads and writes under a temporary folder, `self.root`."""

    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        folders = {
            "EC_ROOT": self.root,
            "EC_DATASET_ROOT": os.path.join(self.root, "datasets"),
            "EC_IMAGENET_ROOT": os.path.join(self.root, "imagenet"),
            "EC_BORUTA_ROOT": os.path.join(self.root, "boruta"),
        }
        patch = mock.patch.dict(os.environ, folders)
        patch.start()
        self.addCleanup(patch.stop)
        stack = contextlib.ExitStack()
        stack.enter_context(installed(CpuPlatform()))
        self.addCleanup(stack.close)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Runs `EC.py` with these arguments in this process; returns its exit status, standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = EC.main(list(arguments))
        return status, out.getvalue(), err.getvalue()

    def files(self) -> list[str]:
        """The paths of all files under the root, relative to it."""
        return sorted(os.path.relpath(os.path.join(folder, name), self.root) for folder, _, names in os.walk(self.root) for name in names)
