"""The training batches of each epoch, in an order that (seed, epoch) alone determine."""

from __future__ import annotations

import math
from typing import Any

import keras

from studies.seeds import permutation
from workers.tasks.problem import Data, take


class ShuffledBatches(keras.utils.PyDataset):
    """Batches for `model.fit`: `studies.seeds.permutation(seed, epoch)` of the examples, cut in order.

    The last batch holds what is left over: there are ceil(examples / batch_size). `start` sets the epoch.
    """

    def __init__(self, data: Data, *, examples: int, batch_size: int, seed: int) -> None:
        super().__init__()
        self._data = data
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self.start(0)

    def start(self, epoch: int) -> None:
        """Take the order of this epoch, before Keras asks for its first batch."""
        self._order = permutation(self._seed, epoch, self._examples)

    @property
    def num_batches(self) -> int:
        """The number of batches, which is the number of optimizer steps, in an epoch."""
        return math.ceil(self._examples / self._batch_size)

    def __getitem__(self, index: int) -> Any:
        """Batch number `index` of the epoch."""
        return take(self._data, self._order[index * self._batch_size : (index + 1) * self._batch_size])
