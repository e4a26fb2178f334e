"""The command line of the framework: picks the runner, parses its flags, installs the platform, and runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cli import runner_registry
from foundations.errors import ConfigError, one_line
from platforms.system import provenance, signals


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit status: 0, or with a line of explanation 2 for what cannot be run, 3 for what is busy, 75 when
    stopped."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(runner_registry.welcome())
        return 0
    try:
        with signals.watching(), provenance.asked(arguments):
            run(arguments[0], arguments[1:])
    except ConfigError as error:
        print(one_line(f"EC.py {arguments[0]}: {error}"), file=sys.stderr)
        return error.exit_status
    except SystemExit as leave:  # argparse leaves like this after --help
        return leave.code or 0
    except signals.Stopped as stopped:
        print(f"{stopped}. The same command goes on from there.", file=sys.stderr)
        return signals.EXIT_STATUS
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def run(command: str, arguments: Sequence[str]) -> None:
    """Parses the arguments of a command and runs it on the platform that they name."""
    with runner_registry.platform_class(arguments).together():
        platform, job = runner_registry.parse(command, arguments)
        platform.launch(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
