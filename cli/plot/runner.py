"""The command `plot`."""

from foundations.runner import Runner


class PlotRunner(Runner):
    @staticmethod
    def description() -> str:
        return "Draw curves."
