"""Parameters of schedules and optimizers: from a small pydantic model to what may be searched.

A schedule or an optimizer is a pydantic model whose fields carry their bounds and, in a `Search`
mark, the domain that a study searches when it says nothing else. This module reads the models: it
checks the domains that people write against the fields' bounds, and describes the fields for the
catalogue. A model with `OwnParameters` takes, beside its fields, numbers under names of the user's own.
"""

from __future__ import annotations

import keyword
import math
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

import annotated_types
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from studies.errors import FieldError, suggestion
from studies.space import Choice, Domain, Fixed, Range, Space, Value, read_domain

Kind = Literal["float", "int", "bool", "str"]

_DOMAIN: TypeAdapter[Fixed | Range | Choice] = TypeAdapter(Domain)
Model = TypeVar("Model", bound=BaseModel)


MAX_BAD_PARAMETERS = 30
"""At most so many bad parameters are told of at once."""

MAX_OWN_PARAMETERS = 20
"""At most so many names can a user add."""

_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}", re.ASCII)
_LARGEST = 1e300


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError("must be a number")
    if not -_LARGEST <= given <= _LARGEST:
        raise ValueError(f"must be a finite number, at most {_LARGEST:g} in size")
    return given


OwnValue = Annotated[float | int, BeforeValidator(_number)]
"""The value of a parameter of the user's own."""


class OwnParameters(BaseModel):
    """A model that takes, beside its fields, numbers under names of the user's own."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OwnValue]

    taken: ClassVar[frozenset[str]] = frozenset()
    """Names that mean something else already, beside the model's fields."""

    @property
    def own(self) -> dict[str, float]:
        """The user's own parameters."""
        return dict(self.__pydantic_extra__ or {})

    @classmethod
    def bad_name(cls, name: str) -> str | None:
        """Why a parameter cannot have this name; None if it can."""
        if not _OWN_NAME.fullmatch(name):
            return "a parameter's name is made of letters, digits and _, up to 50, and starts with a letter"
        if keyword.iskeyword(name) or name in cls.taken or name in _OF_THE_STUDY:
            return f"a parameter of one's own cannot be called so, {name} has a meaning already"
        return None

    @classmethod
    def bad_together(cls, space: Space) -> list[FieldError]:
        """What is wrong with domains that are right one by one."""
        return []

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        for number, name in enumerate(self.own, 1):
            if reason := self.bad_name(name) if number <= MAX_OWN_PARAMETERS else _too_many():
                raise ValueError(f"{name}: {reason}")
        return self


_OF_THE_STUDY = frozenset(
    {"learning_rate", "warmup", "batch_size", "weight_decay", "optimizer", "seed", "schedule", "restore_best_weights"}
)
"""What else a trial is told, or a `ScheduleCallback` is given, beside the schedule's parameters."""


def _too_many() -> str:
    return f"there can be at most {MAX_OWN_PARAMETERS} parameters of one's own"


@dataclass(frozen=True)
class EpochRange:
    """Whole numbers from `low` to `fraction` of the study's epochs: for what counts in epochs."""

    low: int
    fraction: float

    def over(self, epochs: int, most: float | None) -> Range:
        """The range at a number of epochs, up to the field's own bound; it always has at least two values."""
        high = max(self.low + 1, int(epochs * self.fraction))
        return Range(low=self.low, high=high if most is None else min(high, int(most)), integer=True)


@dataclass(frozen=True)
class Search:
    """Marks a field with the domain that is searched by default."""

    domain: Fixed | Range | Choice | EpochRange


class ParameterInfo(BaseModel):
    """One parameter, as the catalogue shows it.

    `search` is the default domain as one would write it in a definition; `epochs` in it stands for
    the study's number of epochs.
    """

    name: str
    kind: Kind
    description: str
    default: Value | None
    low: float | None = None
    low_included: bool = True
    high: float | None = None
    high_included: bool = True
    options: list[Value] | None = None
    search: Any


def parameter_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that are parameters: all but the discriminating `type`."""
    return {name: field for name, field in model.model_fields.items() if name != "type"}


def kind_of(annotation: Any) -> Kind:
    """The kind of value that an annotation holds."""
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "str"
    if get_origin(annotation) in (Union, types.UnionType):
        return kind_of(next(arg for arg in get_args(annotation) if arg is not type(None)))
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}
    return kinds[annotation]


def check_domain(annotation: Any, raw: object) -> Fixed | Range | Choice:
    """Read a domain as people write it and hold every value in it against the annotation's bounds.

    Raises ValueError with what would be right.
    """
    data = read_domain(raw)
    kind = kind_of(annotation)
    adapter = _adapter(annotation)

    def value(label: str, given: object) -> Value:
        if isinstance(given, float) and not math.isfinite(given):
            raise ValueError(f"{label}must be a finite number")
        try:
            return adapter.validate_python(given, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"{label}{in_our_words(first['msg'])}") from None

    if data["kind"] == "range":
        if kind not in ("int", "float"):
            raise ValueError(f"a range needs a number, and this parameter is a {kind}: list its values instead")
        data = {**data, **{end: value(f"{end}: ", data[end]) for end in ("low", "high")}}
        data["integer"] = kind == "int"
    elif data["kind"] == "choice":
        data = {**data, "values": [value(f"choice {i + 1}: ", v) for i, v in enumerate(data["values"])]}
    else:
        data = {**data, "value": value("", data["value"])}
    try:
        return _DOMAIN.validate_python(data)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Value]:
    return TypeAdapter(annotation)


def check_own_domain(raw: object) -> Fixed | Range | Choice:
    """Read the domain of a parameter of the user's own: numbers.

    A range is one of whole numbers if both of its ends are written as such (5, not 5.0).
    Raises ValueError with what would be right.
    """
    data = read_domain(raw)
    whole = data["kind"] == "range" and isinstance(data["low"], int) and isinstance(data["high"], int)
    return check_domain(_OWN_WHOLE if whole else OwnValue, raw)


_OWN_WHOLE = Annotated[int, BeforeValidator(_number)]


def write_domain(domain: Fixed | Range | Choice) -> Any:
    """A domain as people write it; the inverse of `read_domain`."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return list(domain.values)
    return {"low": domain.low, "high": domain.high, **({"log": True} if domain.log else {})}


def check_parameters(model: type[BaseModel], raw: Mapping[str, object]) -> Space:
    """The domains that a definition gives for the parameters of a schedule or an optimizer.

    Raises PydanticCustomError of type `fields`, naming each bad parameter, but no more than 30 (see `field_errors`).
    """
    fields = parameter_fields(model)
    owner = model if issubclass(model, OwnParameters) else None
    space: Space = {}
    bad: list[FieldError] = []
    for name, given in raw.items():
        if len(bad) == MAX_BAD_PARAMETERS:
            break
        try:
            if name in fields:
                space[name] = check_domain(annotation_of(fields[name]), given)
            elif owner is not None:
                space[name] = _check_own(owner, str(name), given, len(set(space) - set(fields)))
            else:
                raise ValueError(f"unknown parameter{suggestion(str(name), fields)}")
        except ValueError as error:
            bad.append(FieldError(str(name), given, str(error)))
    if owner is not None and not bad:
        bad = owner.bad_together(space)
    if bad:
        raise PydanticCustomError("fields", "{count} bad parameters", {"count": len(bad), "fields": bad})
    return space


def _check_own(model: type[OwnParameters], name: str, given: object, before: int) -> Fixed | Range | Choice:
    if reason := model.bad_name(name) if before < MAX_OWN_PARAMETERS else _too_many():
        raise ValueError(reason)
    try:
        return check_own_domain(given)
    except ValueError as error:
        meant = suggestion(name, parameter_fields(model)) if isinstance(given, str) else ""
        raise ValueError(f"{error}{meant}") from None


def complete_space(model: type[BaseModel], given: Space, epochs: int) -> Space:
    """The given domains, and for every other parameter its default search domain."""
    fields = parameter_fields(model)
    own = {name: domain for name, domain in given.items() if name not in fields}
    return {name: given.get(name) or default_domain(field, epochs) for name, field in fields.items()} | own


def default_domain(field: FieldInfo, epochs: int) -> Fixed | Range | Choice:
    """What is searched when a study says nothing: the field's `Search` mark, or its default alone."""
    for mark in field.metadata:
        if isinstance(mark, Search):
            return mark.domain.over(epochs, _highest(field)) if isinstance(mark.domain, EpochRange) else mark.domain
    return Fixed(value=field.default)


def describe_parameters(model: type[BaseModel]) -> list[ParameterInfo]:
    """The parameters of a schedule or an optimizer, for the catalogue."""
    return [_describe(name, field) for name, field in parameter_fields(model).items()]


def annotation_of(field: FieldInfo) -> Any:
    """A field's annotation with its bounds, as a type to validate a single value with."""
    annotation: Any = field.annotation
    for mark in field.metadata:
        annotation = Annotated[annotation, mark]
    return annotation


def _describe(name: str, field: FieldInfo) -> ParameterInfo:
    info = ParameterInfo(
        name=name,
        kind=kind_of(field.annotation),
        description=field.description or "",
        default=field.default,
        search=_search_in_words(field),
    )
    for mark in _marks(field):
        match mark:
            case annotated_types.Ge(ge=bound):
                info.low, info.low_included = float(str(bound)), True
            case annotated_types.Gt(gt=bound):
                info.low, info.low_included = float(str(bound)), False
            case annotated_types.Le(le=bound):
                info.high, info.high_included = float(str(bound)), True
            case annotated_types.Lt(lt=bound):
                info.high, info.high_included = float(str(bound)), False
    if get_origin(field.annotation) is Literal:
        info.options = list(get_args(field.annotation))
    return info


def _search_in_words(field: FieldInfo) -> Any:
    for mark in field.metadata:
        if isinstance(mark, Search) and isinstance(mark.domain, EpochRange):
            return {"low": mark.domain.low, "high": f"epochs * {mark.domain.fraction:g}"}
    return write_domain(default_domain(field, epochs=1))


def _highest(field: FieldInfo) -> float | None:
    return next((float(str(mark.le)) for mark in _marks(field) if isinstance(mark, annotated_types.Le)), None)


def _marks(field: FieldInfo) -> Iterator[Any]:
    for mark in field.metadata:
        yield from mark if isinstance(mark, annotated_types.GroupedMetadata) else (mark,)


def in_our_words(message: str) -> str:
    """A message of pydantic as it stands behind a field's name."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
