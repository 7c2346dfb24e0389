"""Plain values <-> frozen dataclasses. An unknown key, a wrong type or a bad value is an error."""

import dataclasses
import types
import typing
from typing import Any, Final, TypeVar

from einthoven.errors import EinthovenError

T = TypeVar("T")


LARGEST: Final = 2**63 - 1  # of a whole number in TOML


def told(value: object) -> str:
    """A value as it was written, cut where it is long."""
    if isinstance(value, int) and abs(value) > LARGEST:  # Python writes none of more than 4,300 digits
        return "a number of more than 64 bits"
    text = repr(value) if not isinstance(value, str | bytes) else repr(value[:80])
    return text if len(text) <= 80 else f"{text[:80]}…"


def require(holds: bool, expected: str) -> None:
    if not holds:
        raise EinthovenError(f"{expected}: the value given is not.")


def from_dict(cls: type[T], values: object, where: str) -> T:
    """Build a (nested) frozen dataclass from plain values; `where` names the place in error messages."""
    if not isinstance(values, dict):
        raise EinthovenError(f"{where}: expected a table of settings, found {told(values)}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise EinthovenError(f"{where}: unknown key {told(unknown[0])}. Known keys: {', '.join(hints)}.")
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
            raise EinthovenError(f"{where}: expected a list, found {told(value)}.")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise EinthovenError(f"{where}: expected a table of settings, found {told(value)}.")
        return {key: _convert(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    if type(value) is not hint or (hint is int and abs(value) > LARGEST):
        raise EinthovenError(f"{where}: expected {hint.__name__}, found {told(value)}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a configuration, as JSON can hold them; `from_dict` inverts it."""
    return dataclasses.asdict(config)
