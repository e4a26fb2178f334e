"""The command line of the framework: the table of commands, and the entry point that parses and runs one of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cli.commands import Commands, platform_class
from cli.completion.runner import CompletionRunner
from cli.plot.runner import PlotRunner
from cli.runs.runner import RunsRunner
from cli.sweep.runner import SweepRunner
from extraction.racing.race_runner import ExtractCommand
from foundations.errors import ConfigError, one_line
from lottery.branch.runner import LotteryBranchRunner
from lottery.runner import LotteryRunner
from platforms.system import output, provenance, signals, threads
from training.runner import TrainingRunner

# A new command needs one line here.
COMMANDS = Commands(
    {
        "train": TrainingRunner,
        "extract": ExtractCommand,
        "lottery": LotteryRunner,
        "lottery_branch": LotteryBranchRunner,
        "sweep": SweepRunner,
        "runs": RunsRunner,
        "plot": PlotRunner,
        "completion": CompletionRunner,
    }
)


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit status.

    The status is 0 on success, 1 when runs of a sweep failed, 2 for invalid input, 3 when another process has locked the run, 75 when a
    signal stopped the run, and 130 after Ctrl-C. Each error prints one line on stderr. `output.run` adds the errors of the output.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(COMMANDS.welcome())
        return 0
    try:
        with signals.watching(), provenance.command_line(arguments):
            run(arguments[0], arguments[1:])
    except ConfigError as error:
        print(one_line(f"EC.py {arguments[0]}: {error}"), file=sys.stderr)
        return error.exit_status
    except SystemExit as exit_request:  # argparse exits after --help
        return exit_request.code if isinstance(exit_request.code, int) else 0
    except signals.Stopped as stopped:
        print(f"{stopped}. Run the same command again to continue from the checkpoint.", file=sys.stderr)
        return signals.EXIT_STATUS
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again to continue from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def run(command: str, arguments: Sequence[str]) -> None:
    """Parses the arguments of a command, and runs the command on the platform that the arguments name."""
    with platform_class(arguments).coordinated():
        platform, job = COMMANDS.parse(command, arguments)
        platform.launch(job)


if __name__ == "__main__":
    threads.limit_spinning()
    sys.exit(output.run(main, sys.argv[1:]))
