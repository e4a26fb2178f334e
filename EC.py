"""The command line of the framework: the table of its commands; it parses one, installs the platform, and runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cli.commands import Commands, platform_class
from cli.completion.runner import CompletionRunner
from cli.plot.runner import PlotRunner
from cli.runs.runner import RunsRunner
from cli.sweep.runner import SweepRunner
from extraction.runner import ExtractionRunner
from foundations.errors import ConfigError, one_line
from lottery.branch.runner import LotteryBranchRunner
from lottery.runner import LotteryRunner
from platforms.system import provenance, signals
from training.runner import TrainingRunner

# A new command is a line here.
COMMANDS = Commands(
    {
        "train": TrainingRunner,
        "extract": ExtractionRunner,
        "lottery": LotteryRunner,
        "lottery_branch": LotteryBranchRunner,
        "sweep": SweepRunner,
        "runs": RunsRunner,
        "plot": PlotRunner,
        "completion": CompletionRunner,
    }
)


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit status: 0, or with a line of explanation 2 for what cannot be run, 3 for what is busy, 75 when
    stopped."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(COMMANDS.welcome())
        return 0
    try:
        with signals.watching(), provenance.command_line(arguments):
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
    with platform_class(arguments).coordinated():
        platform, job = COMMANDS.parse(command, arguments)
        platform.launch(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
