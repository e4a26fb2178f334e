"""How threads wait for their next work.

The threads of OpenMP, on which torch computes, wait by spinning: they keep their cores busy. Alone that is fastest. Beside other jobs on
the same cores it is slow, because threads that wait take the cores from threads that compute. A short spin is as fast alone and lets other
jobs work (measured by `testing/benchmarks/neighbours.py`).
"""

from __future__ import annotations

import os

SPIN_COUNT = 5000  # of GNU's runtime, tens of microseconds; by default it spins for milliseconds
BLOCK_MILLISECONDS = 1  # of Intel's and LLVM's runtime; 200 by default
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def limit_spinning() -> None:
    """Makes waiting threads of this process and of its child processes sleep soon, unless the environment already says how threads wait.

    The runtimes read the environment when torch is loaded, so this must be called before.
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ.update(GOMP_SPINCOUNT=str(SPIN_COUNT), KMP_BLOCKTIME=str(BLOCK_MILLISECONDS))
