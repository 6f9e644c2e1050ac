"""What a snippet of an open-loop schedule is put together from: `studies.winner` copies what it needs.

So nothing here may refer to LR Arena; Keras and NumPy are all that the user has.
"""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="winner")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises in equal parts to the base rate over `steps` steps; then the schedule begins, with its step 0."""

    def __init__(self, learning_rate, steps, schedule):
        self.learning_rate, self.steps, self.schedule = learning_rate, steps, schedule

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = self.learning_rate * ((step + 1.0) / self.steps)
        return ops.where(step < self.steps, rising, self.schedule(ops.maximum(step - self.steps, 0.0)))

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"learning_rate": self.learning_rate, "steps": self.steps, "schedule": schedule}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])})


@keras.saving.register_keras_serializable(package="winner")
class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """One learning rate per optimizer step; past the end the last one stays.

    pieces: (first step, c0, c1, c2, c3), zeros at the end left out: from its first step to that of the next piece,
    t steps later, the rate is c0 + c1 t + c2 t^2 + c3 t^3. They were made for `made_for` steps; where `steps` is
    another number, the table is stretched to it. It begins at optimizer iteration `offset`.
    """

    def __init__(self, pieces, made_for, steps, offset=0):
        self.pieces, self.made_for, self.steps, self.offset = pieces, made_for, steps, offset
        first = np.array([piece[0] for piece in pieces])
        padded = np.array([(*piece[1:], 0.0, 0.0, 0.0)[:4] for piece in pieces])
        step = np.arange(made_for)
        piece = np.searchsorted(first, step, side="right") - 1
        c, t = padded[piece].T, step - first[piece]
        rates = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
        self.table = np.interp(np.arange(steps) * (made_for / steps), step, rates).astype("float32")

    def __call__(self, step):
        index = ops.clip(ops.cast(step, "int32") - self.offset, 0, self.steps - 1)
        return ops.take(ops.convert_to_tensor(self.table), index)

    def get_config(self):
        return {"pieces": self.pieces, "made_for": self.made_for, "steps": self.steps, "offset": self.offset}


class SetSchedule(keras.callbacks.Callback):
    """Puts a table of rates into the optimizer of any compiled model, spread over the epochs of its fit."""

    def __init__(self, pieces, made_for):
        super().__init__()
        self.pieces, self.made_for = pieces, made_for

    def on_train_begin(self, logs=None):
        self.is_set = False

    def on_epoch_begin(self, epoch, logs=None):
        if self.is_set:
            return
        self.is_set = True
        epochs, steps_per_epoch = self.params["epochs"], self.params["steps"]
        if not steps_per_epoch:
            raise ValueError("the number of steps is not known: give model.fit steps_per_epoch")
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        begin = int(ops.convert_to_tensor(optimizer.iterations)) - epoch * steps_per_epoch
        steps = epochs * steps_per_epoch
        self.model.optimizer.learning_rate = TableSchedule(self.pieces, self.made_for, steps, offset=begin)
        self.model.make_train_function(force=True)  # one that was traced before has the old rate built in
