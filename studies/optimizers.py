"""The optimizers a study may use, with their own parameters, named as Keras names them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from studies.space import Fixed, Range

Fraction = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, le=1, description="added to the denominator against division by zero")]


class Optimizer(BaseModel):
    """An optimizer at fixed parameters; `type` is its name in lower case."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    keras_name: ClassVar[str]
    learning_rate: ClassVar[Range]
    """The base rates that are searched when a study names none."""
    weight_decay: ClassVar[Fixed] = Fixed(value=0.0)
    """The weight decay of Keras' own default; 0 is none."""

    type: str


_SGD_RATES = Range(low=1e-3, high=1.0, log=True)
_ADAM_RATES = Range(low=1e-5, high=3e-2, log=True)


class Sgd(Optimizer):
    """Stochastic gradient descent, with momentum if it is above 0."""

    keras_name: ClassVar[str] = "SGD"
    learning_rate: ClassVar[Range] = _SGD_RATES

    type: Literal["sgd"] = "sgd"
    momentum: Fraction = Field(default=0.0, description="share of the last update that is kept")
    nesterov: bool = Field(default=False, description="Nesterov's momentum")


class Adam(Optimizer):
    """Adam. Kingma and Ba 2015, arXiv:1412.6980."""

    keras_name: ClassVar[str] = "Adam"
    learning_rate: ClassVar[Range] = _ADAM_RATES

    type: Literal["adam"] = "adam"
    beta_1: Fraction = Field(default=0.9, description="decay of the mean of gradients")
    beta_2: Fraction = Field(default=0.999, description="decay of the mean of squared gradients")
    epsilon: Epsilon = 1e-7
    amsgrad: bool = Field(default=False, description="keep the maximum of past squared gradients")


class AdamW(Optimizer):
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019, arXiv:1711.05101."""

    keras_name: ClassVar[str] = "AdamW"
    learning_rate: ClassVar[Range] = _ADAM_RATES
    weight_decay: ClassVar[Fixed] = Fixed(value=0.004)

    type: Literal["adamw"] = "adamw"
    beta_1: Fraction = Field(default=0.9, description="decay of the mean of gradients")
    beta_2: Fraction = Field(default=0.999, description="decay of the mean of squared gradients")
    epsilon: Epsilon = 1e-7
    amsgrad: bool = Field(default=False, description="keep the maximum of past squared gradients")


class RmsProp(Optimizer):
    """RMSprop. Hinton 2012, lecture 6e."""

    keras_name: ClassVar[str] = "RMSprop"
    learning_rate: ClassVar[Range] = _ADAM_RATES

    type: Literal["rmsprop"] = "rmsprop"
    rho: Fraction = Field(default=0.9, description="decay of the mean of squared gradients")
    momentum: Fraction = Field(default=0.0, description="share of the last update that is kept")
    epsilon: Epsilon = 1e-7
    centered: bool = Field(default=False, description="normalise by the variance of the gradients")


class Adagrad(Optimizer):
    """Adagrad. Duchi et al. 2011."""

    keras_name: ClassVar[str] = "Adagrad"
    learning_rate: ClassVar[Range] = _SGD_RATES

    type: Literal["adagrad"] = "adagrad"
    initial_accumulator_value: float = Field(default=0.1, ge=0, description="where the sum of squares starts")
    epsilon: Epsilon = 1e-7


class Adadelta(Optimizer):
    """Adadelta. Zeiler 2012, arXiv:1212.5701. Its usual base rate is 1."""

    keras_name: ClassVar[str] = "Adadelta"
    learning_rate: ClassVar[Range] = Range(low=1e-2, high=10.0, log=True)

    type: Literal["adadelta"] = "adadelta"
    rho: Fraction = Field(default=0.95, description="decay of the mean of squared gradients and updates")
    epsilon: Epsilon = 1e-7


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": Sgd,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RmsProp,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
}
