"""Plain values <-> frozen dataclasses. An unknown key, a wrong type or a bad value is an error."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from einthoven.errors import EinthovenError

T = TypeVar("T")


def require(holds: bool, expected: str) -> None:
    if not holds:
        raise EinthovenError(f"{expected}: the value given is not.")


def from_dict(cls: type[T], values: object, where: str) -> T:
    """Build a (nested) frozen dataclass from plain values; `where` names the place in error messages."""
    if not isinstance(values, dict):
        raise EinthovenError(f"{where}: expected a table of settings, found {values!r}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise EinthovenError(f"{where}: unknown key {unknown[0]!r}. Known keys: {', '.join(hints)}.")
    converted = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    for part in dataclasses.fields(cls):  # type: ignore[arg-type]
        if isinstance(converted.get(part.name), dict):  # a table of settings changes what it names, and not the rest
            converted[part.name] = {**part.default_factory(), **converted[part.name]}  # type: ignore[operator]
    try:
        return cls(**converted)
    except EinthovenError as error:
        raise EinthovenError(f"{where}: expected {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise EinthovenError(f"{where}: expected a list, found {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise EinthovenError(f"{where}: expected a table of settings, found {value!r}.")
        return {key: _convert(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise EinthovenError(f"{where}: expected {hint.__name__}, found {value!r}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a configuration, as JSON can hold them; `from_dict` inverts it."""
    return dataclasses.asdict(config)
