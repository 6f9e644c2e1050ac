"""Which trainer runs a trial, and what is kept for the next one on the same problem."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from studies.configuration import Configuration
from workers.compiling import compiled
from workers.plain import PlainTrainer
from workers.tasks.problem import Problem

if TYPE_CHECKING:
    from workers.fused import FusedTrainer
    from workers.tensors import Tensors

MOST_PROGRAMS = 8
MOST_BYTES = 2**28
"""How many programs are kept, the last one in any case, and how many bytes their variables take together."""


class Programs:
    """What the trials on one problem share.

    fused: whether to use the fused trainer where it can be; else every trial runs by `model.fit`.
    told: takes a line for the log, where a trial cannot be fused.
    made: how many programs were compiled.
    """

    def __init__(
        self, problem: Problem, *, fused: bool = True, told: Callable[[str], None] = lambda text: None
    ) -> None:
        self.problem = problem
        self.made = 0
        self._fused = fused and keras.backend.backend() == "tensorflow"
        self._told = told
        self._tensors: Tensors | None = None
        self._draws: bool | None = None
        self._programs: OrderedDict[str, FusedTrainer] = OrderedDict()

    def trainer(self, configuration: Configuration, seed: int) -> PlainTrainer | FusedTrainer:
        """A trainer with a model whose weights, seeds and optimizer are fresh, all from the seed."""
        if not self._fused:
            keras.utils.set_random_seed(seed)
            return PlainTrainer(self.problem, configuration, compiled(self.problem, configuration))
        from workers.fused import FusedTrainer, draws, program_of, why_not
        from workers.tensors import Tensors

        if self._draws is None:
            self._draws = draws(self.problem.model)
        key = program_of(configuration)
        kept = self._programs.pop(key, None)
        if kept is not None:
            # TensorFlow takes what it has compiled for stale when it is given a seed.
            (keras.utils.set_random_seed if self._draws else _set_plain_seeds)(seed)
            if kept.start(configuration):
                self._programs[key] = kept
                return kept
        keras.utils.set_random_seed(seed)
        model = compiled(self.problem, configuration)
        reason = why_not(model)
        if reason is None and self._tensors is None:
            try:
                self._tensors = Tensors(self.problem)
            except (TypeError, ValueError) as error:
                reason = str(error)
        if reason is not None or self._tensors is None:
            self._fused = False
            self._told(f"trains with model.fit: {reason}")
            return PlainTrainer(self.problem, configuration, model)
        trainer = FusedTrainer(self.problem, configuration, model, self._tensors)
        self.made += 1
        if trainer.shared:
            self._programs[key] = trainer
            self._make_room()
        return trainer

    def _make_room(self) -> None:
        while len(self._programs) > 1 and (
            len(self._programs) > MOST_PROGRAMS or sum(map(_bytes, self._programs.values())) > MOST_BYTES
        ):
            self._programs.popitem(last=False)


def _set_plain_seeds(seed: int) -> None:
    """As `keras.utils.set_random_seed` does, but for the states of Keras and TensorFlow."""
    random.seed(seed)
    np.random.seed(seed)


def _bytes(trainer: Any) -> int:
    variables = [*trainer.model.variables, *trainer.model.optimizer.variables]
    return sum(variable.value.dtype.size * int(variable.value.shape.num_elements()) for variable in variables)
