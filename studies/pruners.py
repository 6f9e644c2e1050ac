"""What a study may say about ending its unpromising search trials: Optuna's pruners, by Optuna's parameter names.

A step is an epoch, counted from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from studies.errors import FieldError, suggestion
from studies.parameters import in_our_words

MOST_EPOCHS = 1_000_000
MOST_TRIALS = 100_000


class _Pruner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def first_epoch(self) -> int:
        """The first epoch at which a trial may be pruned; of `min_resource: auto` the least that it may come to."""
        raise NotImplementedError


class Median(_Pruner):
    """Ends a trial whose best value so far is worse than the median of the completed trials at the same epoch.

    n_startup_trials: how many trials must have been completed before any is pruned. n_warmup_steps: the first epoch
    at which one is. interval_steps: how many epochs lie between two comparisons. n_min_trials: how many completed
    trials must have a value at the epoch.
    """

    type: Literal["median"]
    n_startup_trials: int = Field(default=5, ge=0, le=MOST_TRIALS)
    n_warmup_steps: int = Field(default=0, ge=0, le=MOST_EPOCHS)
    interval_steps: int = Field(default=1, ge=1, le=MOST_EPOCHS)
    n_min_trials: int = Field(default=1, ge=1, le=MOST_TRIALS)

    @property
    def first_epoch(self) -> int:
        """The end of the warm-up."""
        return self.n_warmup_steps


def _epochs_or_auto(raw: object) -> object:
    if raw == "auto":
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int) or not 1 <= raw <= MOST_EPOCHS:
        raise ValueError(f"must be auto or a whole number from 1 to {MOST_EPOCHS}")
    return raw


class SuccessiveHalving(_Pruner):
    """Lets only the best part of the trials on at each of a few epochs, each so many times as late as the last.

    min_resource: the first such epoch; `auto`: a hundredth of the epochs of the first completed trial, at least 1, and
    none is pruned before. reduction_factor: one in so many goes on, and the next such epoch is so many times as late.
    min_early_stopping_rate: how many of these epochs are passed over. bootstrap_count: so many trials are pruned
    at each before any goes on.
    """

    type: Literal["successive_halving"]
    min_resource: Annotated[
        int | Literal["auto"],
        BeforeValidator(_epochs_or_auto),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_EPOCHS}]}),
    ] = "auto"
    reduction_factor: int = Field(default=4, ge=2, le=1000)
    min_early_stopping_rate: int = Field(default=0, ge=0, le=100)
    bootstrap_count: int = Field(default=0, ge=0, le=MOST_TRIALS)

    @field_validator("bootstrap_count")
    @classmethod
    def _needs_a_first_epoch(cls, count: int, info: ValidationInfo) -> int:
        if count > 0 and info.data.get("min_resource") == "auto":
            raise ValueError("must be 0 where min_resource is auto")
        return count

    @property
    def first_epoch(self) -> int:
        """The first epoch at which trials are compared."""
        least = 1 if isinstance(self.min_resource, str) else self.min_resource
        return int(least * self.reduction_factor**self.min_early_stopping_rate)


class Hyperband(_Pruner):
    """Successive halving from several first epochs on: each trial is assigned to one of them by its number.

    The parameters are those of successive halving; `max_resource` is the study's number of epochs.
    """

    type: Literal["hyperband"]
    min_resource: int = Field(default=1, ge=1, le=MOST_EPOCHS)
    reduction_factor: int = Field(default=3, ge=2, le=1000)
    bootstrap_count: int = Field(default=0, ge=0, le=MOST_TRIALS)

    @property
    def first_epoch(self) -> int:
        """The first epoch at which trials of the earliest bracket are compared."""
        return self.min_resource


PRUNERS: dict[str, type[_Pruner]] = {
    "median": Median,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
}
MAX_BAD_PARAMETERS = 30
"""At most so many bad parameters are told of at once."""


def _read(raw: Any) -> Any:
    if raw == "none" or isinstance(raw, _Pruner):
        return raw
    if isinstance(raw, str):
        raw = {"type": raw}
    if not isinstance(raw, Mapping) or not isinstance(raw.get("type"), str):
        raise ValueError("must be none, a type, such as median, or {type: ..., parameters}")
    name = raw["type"]
    if name not in PRUNERS:
        raise ValueError(f"unknown pruner {name!r}{suggestion(name, PRUNERS)}")
    try:
        return PRUNERS[name].model_validate(dict(raw))
    except ValidationError as error:
        bad = [_bad_parameter(name, item) for item in error.errors(include_url=False)[:MAX_BAD_PARAMETERS]]
        raise PydanticCustomError("fields", "{count} bad parameters", {"count": len(bad), "fields": bad}) from None


def _bad_parameter(pruner: str, error: ErrorDetails) -> FieldError:
    parameter = str(error["loc"][0])
    message = in_our_words(error["msg"])
    if error["type"] == "extra_forbidden" and parameter == "max_resource":
        message = "unknown parameter; it is the study's epochs"
    elif error["type"] == "extra_forbidden":
        message = f"unknown parameter{suggestion(parameter, set(PRUNERS[pruner].model_fields) - {'type'})}"
    return FieldError(parameter, error["input"], message)


Pruner = Median | SuccessiveHalving | Hyperband

PrunerField = Annotated[
    Literal["none"] | Pruner,
    BeforeValidator(
        _read,
        json_schema_input_type=Literal["none", "median", "successive_halving", "hyperband"]
        | Median
        | SuccessiveHalving
        | Hyperband,
    ),
]
"""`none`, the type of a pruner, or `{type: median, n_startup_trials: 5}`; kept with all of its parameters."""
