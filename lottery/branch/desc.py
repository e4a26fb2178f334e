"""The descriptor of a branch: the experiment that it belongs to, and its own arguments."""

from __future__ import annotations

import dataclasses
import os

from foundations.desc import Desc, display_text, existing_folder, fingerprint
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN
from lottery.desc import LotteryDesc


@dataclasses.dataclass
class BranchDesc(Desc):
    """A lottery ticket experiment, the name of a branch, and the arguments of its `branch_function`.

    Each level of the trunk contains a folder `lottery_branch_<name>_<md5>`. The hash covers the arguments only.
    """

    lottery_desc: LotteryDesc
    branch_name: str
    branch_hparams: Hparams

    @staticmethod
    def name_prefix() -> str:
        return "lottery_branch"

    def bundles(self) -> dict[str, Hparams]:
        return self.lottery_desc.bundles() | super().bundles()

    @property
    def hashname(self) -> str:
        return f"{self.name_prefix()}_{self.branch_name}_{fingerprint(self.branch_hparams)}"

    @property
    def hashname_as_written(self) -> str:
        return f"{self.name_prefix()}_{self.branch_name}_{fingerprint(self.branch_hparams, text=Hparams.text_as_written)}"

    def run_path(self, root: str, seed: int = NOT_CHOSEN, level: int = 0) -> str:
        """The folder of the branch within a level."""
        names = self.hashname, self.hashname_as_written
        return existing_folder(*(self.lottery_desc.run_path(root, seed, level, name) for name in names))

    def report_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The path of the branch's picture of several levels."""
        return os.path.join(self.lottery_desc.seed_path(root, seed), f"{self.hashname}.png")

    @property
    def display(self) -> str:
        own = display_text([self.branch_hparams])
        return f"{self.lottery_desc.display}\n{own}" if own else self.lottery_desc.display

    @property
    def log(self) -> str:
        return self.display
