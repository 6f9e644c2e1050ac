"""A problem's data as TensorFlow's tensors, made once for all of its trials."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from workers.tasks.problem import Data, Problem, take

RESIDENT_BYTES = 2**30
"""A part of the data that is larger than this stays where it is, and the rows of each call are copied."""


class Part:
    """The training, validation or test data, with the dtypes that they have in `model.fit`."""

    def __init__(self, data: Data, *, floatx: bool) -> None:
        self._data = keras.tree.map_structure(lambda array: _array(array, floatx=floatx), data)
        arrays = keras.tree.flatten(self._data)
        self.examples = len(arrays[0])
        self._resident = sum(array.nbytes for array in arrays) <= RESIDENT_BYTES

    @property
    def spec(self) -> Any:
        """The structure of `rows`, for any number of them."""
        return keras.tree.map_structure(lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), self._data)

    def rows(self, order: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Tensors and the places in them of the examples that are asked for, in their order."""
        if self._resident:
            return self._tensors, order
        return keras.tree.map_structure(tf.constant, take(self._data, order)), np.arange(len(order))

    @cached_property
    def _tensors(self) -> Any:
        return keras.tree.map_structure(tf.constant, self._data)


class Tensors:
    """The three parts. Raises TypeError or ValueError for data that cannot be tensors."""

    def __init__(self, problem: Problem) -> None:
        # As Keras has it: batches of a PyDataset as they are, arrays to be evaluated in its own float.
        self.train = Part(problem.train, floatx=False)
        self.validation = Part(problem.validation, floatx=True)
        self.test = Part(problem.test, floatx=True)
        if self.test.spec != self.validation.spec:
            raise ValueError("the test data have other shapes or types than the validation data")


def _array(array: Any, *, floatx: bool) -> NDArray[Any]:
    array = np.asarray(array)
    if array.dtype.kind == "f" and floatx:
        array = array.astype(keras.config.floatx(), copy=False)
    tf.constant(array[:1])  # Raises what it cannot be.
    return array
