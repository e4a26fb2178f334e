"""A descriptor: all hyperparameters of a run except its seed. Their hash is the name of the run."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
import re
import typing
from collections.abc import Callable, Iterable

from foundations import json_text
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN


def fingerprint(*bundles: Hparams, text: Callable[[Hparams], str] = str) -> str:
    """The MD5 (32 hexadecimal digits) of the canonical texts of the bundles, or of another `text` of them, joined by `;`."""
    return hashlib.md5(";".join(map(text, bundles)).encode("utf-8")).hexdigest()


def existing_folder(*folders: str) -> str:
    """The first of some folders that exists; the first one if none exists. Older names of a folder come last."""
    return next(filter(os.path.exists, folders), folders[0])


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

    def __post_init__(self):
        """Raises a TypeError if a field does not contain its kind of Hparams. OpenLTH has the same fields in another order."""
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, valid = getattr(self, field.name), typing.get_args(hints[field.name]) or (hints[field.name],)
            if not isinstance(value, valid):
                raise TypeError(f"{type(self).__name__}.{field.name} is of type {type(value).__name__}; valid: {valid[0].__name__}")

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

    @property
    def hashname_as_written(self) -> str:
        """The name that the run has in OpenLTH, and had here, if a hyperparameter is not written in its canonical form, such as `040ep`."""
        return f"{self.name_prefix()}_{fingerprint(*self.bundles().values(), text=Hparams.text_as_written)}"

    def seed_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The folder of everything with this seed. If only a folder with the older name exists, it is that folder."""
        return existing_folder(*(os.path.join(root, name, f"seed_{seed}") for name in (self.hashname, self.hashname_as_written)))

    def run_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The folder of the run with this seed."""
        return os.path.join(self.seed_path(root, seed), "main")

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
