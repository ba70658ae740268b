"""What the room has in the place of `dataclasses`: the part that its code uses, without compiling anything.

The standard module writes up to six functions for every class as text, compiles them when the class is made, and imports
`inspect` for that: two fifths of the agent's imports. Here all classes share the functions below. Process 1 puts this
module in the other's place before anything else is imported (`__main__`), and the base does not have the other.
Tests hold every class of the agent's to the same behaviour with both.

Known here: dataclass(frozen, kw_only, slots), field(default, default_factory, init, repr, compare), replace. Whatever else
a class asks for ends the import, and with it the build of the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("dataclass", "field", "replace")

MISSING = object()
_FIELDS = "__dataclass_fields__"  # the names that the standard module uses, for who asks for them
_POSITIONAL = "__match_args__"
_Class = TypeVar("_Class", bound=type)


class Field:
    """One field of a class."""

    def __init__(
        self,
        *,
        default: Any = MISSING,
        default_factory: Any = MISSING,
        init: bool = True,
        repr: bool = True,
        compare: bool = True,
    ) -> None:
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare


field = Field


def dataclass(
    cls: type | None = None,
    *,
    frozen: bool = False,
    kw_only: bool = False,
    slots: bool = False,  # noqa: ARG001 - taken, as the docstring says
) -> Any:
    """As the standard one; `slots` saves no memory here."""
    if cls is None:
        return lambda later: _with_methods(later, frozen=frozen, kw_only=kw_only)
    return _with_methods(cls, frozen=frozen, kw_only=kw_only)


def replace(instance: Any, /, **changes: Any) -> Any:
    """Another instance of the same class, with `changes`."""
    fields = getattr(instance, _FIELDS)
    kept = {name: getattr(instance, name) for name, field in fields.items() if field.init}
    return type(instance)(**kept | changes)


def _with_methods(cls: _Class, *, frozen: bool, kw_only: bool) -> _Class:
    fields: dict[str, Field] = {}
    positional: tuple[str, ...] = ()
    for base in cls.__mro__[:0:-1]:
        fields |= base.__dict__.get(_FIELDS, {})
        positional += tuple(name for name in base.__dict__.get(_POSITIONAL, ()) if name not in positional)
    own = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - inspect is what this module does without
    for name, annotation in own.items():
        if "ClassVar" in str(annotation) or "InitVar" in str(annotation):
            raise TypeError(f"{cls.__qualname__}.{name}: {annotation} is not known in the room")
        value = cls.__dict__.get(name, MISSING)
        fields[name] = field = value if isinstance(value, Field) else Field(default=value)
        if field.default is not MISSING:
            setattr(cls, name, field.default)
        elif value is not MISSING:
            delattr(cls, name)
        if field.init and not kw_only and name not in positional:
            positional += (name,)
    setattr(cls, _FIELDS, fields)
    setattr(cls, _POSITIONAL, positional)
    functions: dict[str, Callable[..., Any]] = {"__init__": _init, "__repr__": _repr, "__eq__": _eq}
    if frozen:
        functions |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": _hash}
    for name, function in functions.items():
        if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(cls, name, function)
    if not frozen and "__hash__" not in cls.__dict__:
        setattr(cls, "__hash__", None)  # noqa: B010 - mypy knows no class without a hash
    return cls


def _init(self: Any, *positional: Any, **given: Any) -> None:
    cls = type(self)
    names = getattr(cls, _POSITIONAL)
    if len(positional) > len(names) or any(name in given for name in names[: len(positional)]):
        raise TypeError(f"{cls.__qualname__}: too many arguments, or one twice")
    given.update(zip(names, positional, strict=False))
    for name, field in getattr(cls, _FIELDS).items():
        if field.init and name in given:
            value = given.pop(name)
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        elif field.default is not MISSING:
            value = field.default
        else:
            raise TypeError(f"{cls.__qualname__}: {name} is missing")
        object.__setattr__(self, name, value)
    if given:
        raise TypeError(f"{cls.__qualname__}: {', '.join(given)}: no such argument")
    after = getattr(self, "__post_init__", None)
    if after is not None:
        after()


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, field in getattr(self, _FIELDS).items() if field.compare)


def _eq(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    fields = getattr(self, _FIELDS).items()
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name, field in fields if field.repr)
    return f"{type(self).__qualname__}({shown})"


def _refuse(self: object, name: str, *_: object) -> None:
    raise AttributeError(f"cannot change field {name!r} of {type(self).__qualname__}")
