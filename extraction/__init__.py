"""Recovers networks from their answers. `from extraction import recover` does so from Python; the command is `EC.py extract`."""

from __future__ import annotations

import importlib


def __getattr__(name: str) -> object:
    """Imports `recover`, and torch with it, only where it is used: the command line imports this package before torch."""
    if name == "recover":
        return importlib.import_module("extraction.python_call").recover
    raise AttributeError(name)
