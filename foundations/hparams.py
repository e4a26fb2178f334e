"""Hyperparameters: dataclasses that are converted to flags, to text, and to the name of a run.

Each field is a hyperparameter. Its annotation is its type (bool, int, float, str, any of these `| None`, or another Hparams). Its
default leaves training unchanged. The class attribute `_field` is its help text. A field without a default is required. `_name` and
`_description` are the title and the description of the group.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError, did_you_mean
from foundations.former_flags import RENAMED

T = TypeVar("T")
Bundle = TypeVar("Bundle", bound="Hparams")


def unhashed(default: object) -> typing.Any:
    """A field that is left out of the hash, so that it does not name the run."""
    return dataclasses.field(default=default, metadata={"hashed": False})


def normalised(canonical: Callable[[str], str], default: object = dataclasses.MISSING) -> typing.Any:
    """A field whose value may have several texts with the same meaning. `canonical` returns the one that names the run."""
    return dataclasses.field(default=default, metadata={"canonical": canonical})


def hashed_as(name: str, default: object) -> typing.Any:
    """A field that has an older name inside the hash."""
    return dataclasses.field(default=default, metadata={"hash_name": name})


@dataclass
class Hparams:
    """The base of every bundle of hyperparameters."""

    _name = "Hyperparameters"
    _description = ""

    def __setattr__(self, name: str, value: object) -> None:
        """Sets a field, also during construction. A whole number in a field for numbers becomes a float, as it does on the command line.

        Raises:
            AttributeError: no field has this name. Names that begin with an underscore are free.
            TypeError: the value does not have the type of the field.
        """
        if not name.startswith("_"):
            value = self._checked(name, value)
        super().__setattr__(name, value)

    def _checked(self, name: str, value: object) -> object:
        """The value of a field in the type of the field."""
        kinds = _types_of(type(self))
        if name not in kinds:
            new = RENAMED.get(name, "")
            hint = f", which is called {new} here" if new in kinds else did_you_mean(name, kinds)
            raise AttributeError(f"{type(self).__name__} has no field {name!r}{hint}")
        valid = kinds[name]
        if float in valid and type(value) is int:
            return float(value)
        if not isinstance(value, valid) or (isinstance(value, bool) and bool not in valid):
            names = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in valid)
            raise TypeError(f"{type(self).__name__}.{name} is {value!r:.60}; valid: {names}")
        return value

    @classmethod
    def hyperparameters(cls) -> list[tuple[dataclasses.Field, type]]:
        """All fields with their types. `X | None` counts as X."""
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
        """Adds a group with one flag per hyperparameter.

        Args:
            parser: the parser that receives the flags.
            defaults: an object whose attributes replace the defaults of the class.
            prefix: if set, flags are named `--prefix_field` instead of `--field`.
            choices: the valid values of fields, by field name; nested bundles are included. Help lists them, and shells complete them.
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
        """The bundle with the values of the parsed flags.

        Raises:
            ConfigError: a required flag is missing, or a value is out of range.
        """
        values = {}
        for field, kind in cls.hyperparameters():
            name = field.name if prefix is None else f"{prefix}_{field.name}"
            if isinstance(kind, type) and issubclass(kind, Hparams):
                values[field.name] = kind.create_from_args(args, name)
                continue
            values[field.name] = getattr(args, name)
            if values[field.name] is None and field.default is dataclasses.MISSING:
                alternative = "" if getattr(args, "default_hparams", None) else ", or start from --default_hparams=NAME"
                raise ConfigError(f"--{name} is required; give it{alternative}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise error if prefix is None else ConfigError(str(error).replace("--", f"--{prefix}_", 1)) from None

    def require(self, field: str, condition: bool, valid: str) -> None:
        """Raises a ConfigError unless the condition is true. The error names the field, its value and the valid values."""
        if not condition:
            raise ConfigError(f"--{field}: {getattr(self, field)} is out of range; valid: {valid}")

    @property
    def display(self) -> str:
        """The title of the group, and one line for each hyperparameter that is required or differs from its default."""
        lines = [self._name]
        for field in dataclasses.fields(self):
            value = _canonical(field, getattr(self, field.name))
            if isinstance(value, Hparams):
                lines.append(value.display)
            elif value != _default(field):
                lines.append(f"    * {field.name} => {value}")
        return "\n".join(lines)

    def __str__(self):
        """The canonical text: the hashed fields that differ from their defaults, sorted by name."""
        return self._text(_canonical)

    def text_as_written(self) -> str:
        """The text with values as the user wrote them. It named runs before some values had a canonical text, and names them in OpenLTH."""
        return self._text(lambda field, value: value)

    def _text(self, shown_as: Callable[[dataclasses.Field, typing.Any], object]) -> str:
        shown = {}
        for field in dataclasses.fields(self):
            value = shown_as(field, getattr(self, field.name))
            if field.metadata.get("hashed", True) and value != _default(field):
                text = value._text(shown_as) if isinstance(value, Hparams) else repr(value)
                shown[field.metadata.get("hash_name", field.name)] = text
        return f"Hparams({', '.join(f'{name}={shown[name]}' for name in sorted(shown))})"

    def to_dict(self) -> dict[str, typing.Any]:
        """The canonical value of each hyperparameter, ready for JSON."""
        values = {field.name: _canonical(field, getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {name: value.to_dict() if isinstance(value, Hparams) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls: type[Bundle], values: Mapping[str, typing.Any]) -> Bundle:
        """The bundle with the values of a dictionary from `to_dict`. Missing fields have their defaults; unknown names are ignored.

        Raises:
            TypeError: a value has the wrong type, or a required field is missing.
        """
        checked = {}
        for field, kind in cls.hyperparameters():
            if field.name not in values:
                continue
            value = values[field.name]
            if isinstance(kind, type) and issubclass(kind, Hparams):
                value = kind.from_dict(value)
            elif not (type(value) is kind or (kind is float and type(value) is int) or (value is None and field.default is None)):
                raise TypeError(f"{field.name} is {value!r:.40}")
            checked[field.name] = value
        return cls(**checked)

    @classmethod
    def from_text(cls: type[Bundle], texts: Mapping[str, str]) -> Bundle:
        """The bundle with the values of a text from `display`. Unknown names are ignored.

        Raises:
            ValueError: a text cannot be converted to the type of its field.
            TypeError: a required field is missing.
        """
        known = {field.name: kind for field, kind in cls.hyperparameters() if field.name in texts}
        return cls(**{name: texts[name] == "True" if kind is bool else kind(texts[name]) for name, kind in known.items()})


@functools.cache
def _types_of(hparams_class: type[Hparams]) -> dict[str, tuple[type, ...]]:
    """The valid types of each field."""
    hints = typing.get_type_hints(hparams_class)
    return {field.name: typing.get_args(hints[field.name]) or (hints[field.name],) for field in dataclasses.fields(hparams_class)}


def _canonical(field: dataclasses.Field, value: typing.Any) -> typing.Any:
    """The canonical form of a value of a field."""
    canonical = field.metadata.get("canonical")
    return value if canonical is None or value is None else canonical(value)


def _default(field: dataclasses.Field) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _help(text: str, default: object, choices: Sequence[str]) -> str:
    """The help of a flag: its text, its valid values and its default."""
    notes = [f"one of: {', '.join(choices)}"] if choices else []
    if default is dataclasses.MISSING:
        notes.append("required")
    elif default is not None and default is not False:
        notes.append(f"default: {default}")
    return f"{text} ({'; '.join(notes)})".replace("%", "%%") if notes else text.replace("%", "%%")


def _parser(convert: Callable[[str], T], description: str) -> Callable[[str], T]:
    """The function that converts the text of a flag to a value. `description` names the type in the error."""

    def parse(text: str) -> T:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}") from None

    return parse


_PARSERS: dict[type, Callable[[str], typing.Any]] = {int: _parser(int, "a whole number"), float: _parser(float, "a number"), str: str}
