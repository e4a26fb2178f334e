"""All branches. To add a branch, add a file to this package and a line to the table."""

from collections.abc import Sequence

from foundations.errors import unknown
from lottery.branch import linear_connectivity, randomly_prune, randomly_reinitialize, retrain
from lottery.branch.base import Branch

registered_branches: dict[str, type[Branch]] = {
    "randomly_prune": randomly_prune.Branch,
    "randomly_reinitialize": randomly_reinitialize.Branch,
    "retrain": retrain.Branch,
    "linear_connectivity": linear_connectivity.Branch,
}


def get(name: str) -> type[Branch]:
    """The branch of a name.

    Raises:
        ConfigError: no branch has this name.
    """
    if name not in registered_branches:
        raise unknown("branch", name, registered_branches)
    return registered_branches[name]


def welcome(examples: Sequence[str]) -> str:
    """The text that is printed if no branch is named; the examples are commands without `python EC.py`."""
    rule = "=" * 80
    lines = [f"    * EC.py lottery_branch {name} [...] => {branch.description()}" for name, branch in registered_branches.items()]
    shown = [
        "examples:",
        *(f"  python EC.py {example}" for example in examples),
        "",
        "`lottery_branch NAME --help` lists the flags of a branch.",
    ]
    return "\n".join([rule, "Choose a branch to run:", *lines, rule, *shown])
