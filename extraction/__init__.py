"""Recovers networks from their answers. `from extraction import recover` does so from Python; the command is `EC.py extract`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extraction.python_call import recover

__all__ = ["recover"]


def __getattr__(name: str) -> object:
    """Imports `recover`, and with it torch, when it is asked for."""
    if name == "recover":
        from extraction.python_call import recover

        return recover
    raise AttributeError(name)
