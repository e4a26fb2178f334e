"""A descriptor: all hyperparameters of a run except its seed. Their hash is the name of the run."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable

from foundations import json_text
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN


def fingerprint(*bundles: Hparams) -> str:
    """The MD5 (32 hexadecimal digits) of the canonical strings of the bundles, joined by `;`."""
    return hashlib.md5(";".join(str(bundle) for bundle in bundles).encode("utf-8")).hexdigest()


def display_text(bundles: Iterable[object]) -> str:
    """The required and the non-default hyperparameters of bundles. Bundles without such hyperparameters are left out."""
    texts = (bundle.display for bundle in bundles if isinstance(bundle, Hparams))
    return "\n".join(text for text in texts if "\n" in text)


def parse_display_text(text: str) -> dict[str, dict[str, str]]:
    """The values of each group by name, from the text of `display_text`. OpenLTH's `hparams.log` has the same format."""
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
    """A dataclass of Hparams. Its hash is the name of the run folder: if the hash changes, old results are no longer found."""

    @staticmethod
    @abc.abstractmethod
    def name_prefix() -> str:
        """The prefix of the folder's name."""

    def bundles(self) -> dict[str, Hparams]:
        """The hyperparameters that name the run, by field name, in the order in which they are hashed."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: values[name] for name in sorted(values) if isinstance(values[name], Hparams)}

    @property
    def hashname(self) -> str:
        """`<prefix>_<md5>`. The same hyperparameters have the same name in OpenLTH."""
        return f"{self.name_prefix()}_{fingerprint(*self.bundles().values())}"

    def run_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The folder of the run with this seed."""
        return os.path.join(root, self.hashname, f"seed_{seed}", "main")

    @property
    def display(self) -> str:
        """The required and the non-default hyperparameters by group, as printed before a run."""
        return display_text(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def log(self) -> str:
        """The text of `hparams.log`: like `display`, but only the hyperparameters that name the run."""
        return display_text(self.bundles().values())

    def banner(self, title: str, location: str) -> str:
        """The text that is printed when a run starts: its title, its hyperparameters and its folder."""
        rule, line = "=" * 82, "-" * 82
        return f"{rule}\n{title}\n{line}\n{self.display}\nOutput Location: {location}\n{rule}"

    def to_json(self, **more: object) -> str:
        """All bundles that name the run, and the further entries `more`, as JSON."""
        return json_text.dumps({name: bundle.to_dict() for name, bundle in self.bundles().items()} | more, indent=2) + "\n"
