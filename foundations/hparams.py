"""Hyperparameters: dataclasses that turn into flags, into text, and into the name of a run.

A field is a hyperparameter: its annotation is its type (bool, int, float, str, any of them `| None`, or another Hparams), its
default is what leaves training as it would be without it, and a class attribute `_field` is its help. A field without a default
is required. `_name` and `_description` head the group.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError

Bundle = TypeVar("Bundle", bound="Hparams")


def unhashed(default: object) -> typing.Any:
    """A field of a hyperparameter that does not name the run."""
    return dataclasses.field(default=default, metadata={"hashed": False})


def hashed_as(name: str, default: object) -> typing.Any:
    """A field of a hyperparameter that keeps an older name inside the hash."""
    return dataclasses.field(default=default, metadata={"hash_name": name})


@dataclass
class Hparams:
    """The base of every bundle of hyperparameters."""

    _name = "Hyperparameters"
    _description = ""

    @classmethod
    def hyperparameters(cls) -> list[tuple[dataclasses.Field, type]]:
        """Each field with its type, None aside."""
        hints = typing.get_type_hints(cls)
        rows = []
        for field in dataclasses.fields(cls):
            kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
            rows.append((field, next(kind for kind in kinds if kind is not types.NoneType)))
        return rows

    @classmethod
    def add_args(
        cls,
        parser: ArgumentParser,
        defaults: typing.Any = None,
        prefix: str | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Adds a group with one flag a hyperparameter.

        Args:
            parser: where the flags go.
            defaults: an object whose attributes stand in for the class's own defaults.
            prefix: makes `--prefix_field` of `--field`.
            choices: for fields with a closed list of values, bundles within bundles included, the list that help shows and that shells
                complete.
        """
        title = cls._name if prefix is None else f"{cls._name} ({prefix})"
        group = parser.add_argument_group(title, cls._description)
        for field, kind in cls.hyperparameters():
            default = _default(field) if defaults is None else getattr(defaults, field.name)
            name = field.name if prefix is None else f"{prefix}_{field.name}"
            if isinstance(kind, type) and issubclass(kind, Hparams):
                kind.add_args(parser, None if default is dataclasses.MISSING else default, name, choices)
                continue
            values = (choices or {}).get(field.name, ())
            text = _help(getattr(cls, f"_{field.name}", ""), default, values)
            default = None if default is dataclasses.MISSING else default
            if kind is bool:
                group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text)
            else:
                group.add_argument(f"--{name}", type=_PARSERS[kind], default=default, help=text, metavar=kind.__name__.upper())
                parser.choices_of[name] = values

    @classmethod
    def create_from_args(cls: type[Bundle], args: argparse.Namespace, prefix: str | None = None) -> Bundle:
        """The bundle that parsed flags describe.

        Raises:
            ConfigError: a required flag is missing, or a value is out of its range.
        """
        values = {}
        for field, kind in cls.hyperparameters():
            name = field.name if prefix is None else f"{prefix}_{field.name}"
            if isinstance(kind, type) and issubclass(kind, Hparams):
                values[field.name] = kind.create_from_args(args, name)
                continue
            values[field.name] = getattr(args, name)
            if values[field.name] is None and field.default is dataclasses.MISSING:
                elsewhere = "" if getattr(args, "default_hparams", None) else ", or start from --default_hparams=NAME"
                raise ConfigError(f"--{name} is required; give it{elsewhere}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise error if prefix is None else ConfigError(str(error).replace("--", f"--{prefix}_", 1)) from None

    def require(self, field: str, condition: bool, valid: str) -> None:
        """Raises a ConfigError that names a field, its value and what is valid, unless the condition holds."""
        if not condition:
            raise ConfigError(f"--{field}: {getattr(self, field)} is out of range; valid: {valid}")

    @property
    def display(self) -> str:
        """The group's name, and a line for each hyperparameter that is required or differs from its default."""
        lines = [self._name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Hparams):
                lines.append(value.display)
            elif value != _default(field):
                lines.append(f"    * {field.name} => {value}")
        return "\n".join(lines)

    def __str__(self):
        """The canonical text: what differs from its default, sorted by name."""
        shown = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("hashed", True) and value != _default(field):
                shown[field.metadata.get("hash_name", field.name)] = str(value) if isinstance(value, Hparams) else repr(value)
        return f"Hparams({', '.join(f'{name}={shown[name]}' for name in sorted(shown))})"

    def to_dict(self) -> dict[str, object]:
        """Every hyperparameter with its value, as JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[Bundle], values: Mapping[str, object]) -> Bundle:
        """The bundle that `to_dict` described; fields that it did not know have their defaults.

        Raises:
            TypeError: a value is not of its hyperparameter's type, or a required one is missing.
        """
        found = {}
        for field, kind in cls.hyperparameters():
            if field.name not in values:
                continue
            value = values[field.name]
            if isinstance(kind, type) and issubclass(kind, Hparams):
                value = kind.from_dict(value)
            elif not (type(value) is kind or (kind is float and type(value) is int) or (value is None and field.default is None)):
                raise TypeError(f"{field.name} is {value!r:.40}")
            found[field.name] = value
        return cls(**found)

    @classmethod
    def from_text(cls: type[Bundle], texts: Mapping[str, str]) -> Bundle:
        """The bundle whose values `display` showed as text; names that it does not know are passed over.

        Raises:
            ValueError: a text is no value of its hyperparameter.
            TypeError: a required hyperparameter is missing.
        """
        known = {field.name: kind for field, kind in cls.hyperparameters() if field.name in texts}
        return cls(**{name: texts[name] == "True" if kind is bool else kind(texts[name]) for name, kind in known.items()})


def _default(field: dataclasses.Field) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _help(text: str, default: object, choices: Sequence[str]) -> str:
    notes = [f"one of: {', '.join(choices)}"] if choices else []
    if default is dataclasses.MISSING:
        notes.append("required")
    elif default is not None and default is not False:
        notes.append(f"default: {default}")
    return f"{text} ({'; '.join(notes)})".replace("%", "%%") if notes else text.replace("%", "%%")


def _parser(kind: type, article: str):
    def parse(text: str):
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {article}") from None

    return parse


_PARSERS = {int: _parser(int, "a whole number"), float: _parser(float, "a number"), str: str}
