"""A descriptor: the bundle of hyperparameters that says everything about a run but its seed, and names it."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable

from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN


def fingerprint(*bundles: Hparams) -> str:
    """The MD5 (32 hexadecimal digits) of the canonical strings of some hyperparameters, joined by `;`."""
    return hashlib.md5(";".join(str(bundle) for bundle in bundles).encode("utf-8")).hexdigest()


def show(bundles: Iterable[object]) -> str:
    """The required and the non-default hyperparameters of some bundles; those with nothing to show are left out."""
    texts = (bundle.display for bundle in bundles if isinstance(bundle, Hparams))
    return "\n".join(text for text in texts if "\n" in text)


def parse_shown(text: str) -> dict[str, dict[str, str]]:
    """What `show` made of some bundles, which OpenLTH leaves in `hparams.log` as well: the values of each group by name."""
    groups: dict[str, dict[str, str]] = {}
    values: dict[str, str] = {}
    for line in text.splitlines():
        entry = re.fullmatch(r" +\* (\w+) => (.*)", line)
        if entry:
            values[entry[1]] = entry[2]
        else:
            values = groups.setdefault(line.strip(), {})
    return groups


@dataclasses.dataclass
class Desc(abc.ABC):
    """A dataclass of Hparams. Its hash is the name of the folder, so a change to it orphans results."""

    @staticmethod
    @abc.abstractmethod
    def name_prefix() -> str:
        """What the folder's name begins with."""

    def bundles(self) -> dict[str, Hparams]:
        """The hyperparameters that name the run, by field name, sorted as they are hashed."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: values[name] for name in sorted(values) if isinstance(values[name], Hparams)}

    @property
    def hashname(self) -> str:
        """`<prefix>_<md5>`, the same as OpenLTH's for the same hyperparameters."""
        return f"{self.name_prefix()}_{fingerprint(*self.bundles().values())}"

    def run_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The folder of the run with a given seed."""
        return os.path.join(root, self.hashname, f"seed_{seed}", "main")

    @property
    def display(self) -> str:
        """The required and the non-default hyperparameters, in groups, as they are shown before a run."""
        return show(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def log(self) -> str:
        """The same of what names the run, as it is kept beside the results."""
        return show(self.bundles().values())

    def banner(self, title: str, location: str) -> str:
        """What is shown when a run starts: its title, its hyperparameters, and where its results go."""
        rule, line = "=" * 82, "-" * 82
        return f"{rule}\n{title}\n{line}\n{self.display}\nOutput Location: {location}\n{rule}"

    def to_json(self, **more: object) -> str:
        """Every hyperparameter that names the run with its value, and whatever else is to be recorded beside them."""
        return json.dumps({name: bundle.to_dict() for name, bundle in self.bundles().items()} | more, indent=2) + "\n"
