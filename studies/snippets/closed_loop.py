"""What a snippet of a closed-loop schedule is put together from: `studies.winner` copies what it needs.

So nothing here may refer to LR Arena; Keras and NumPy are all that the user has.
"""

import math

import keras
import numpy as np


class ClosedLoop(keras.callbacks.Callback):
    """Holds one rate for an epoch and chooses the next by the metric at its end.

    mode: whether a smaller (min) or a larger (max) value of the metric is better.
    warmup: the fraction of all steps in which the rate first rises to the base rate; an epoch that ends within it
    does not count.
    """

    keeps_best_weights = False

    def __init__(self, learning_rate, monitor, mode, warmup=0.0):
        super().__init__()
        self.learning_rate, self.monitor, self.warmup = learning_rate, monitor, warmup
        self.sign = 1.0 if mode == "max" else -1.0

    def on_train_begin(self, logs=None):
        self.steps_per_epoch = self.params["steps"] or 0
        self.warmup_steps = 0
        if self.warmup:
            if self.model.steps_per_execution != 1 or not self.steps_per_epoch:
                raise ValueError("a warm-up needs steps_per_execution=1 and a known number of steps per epoch")
            steps = self.params["epochs"] * self.steps_per_epoch
            self.warmup_steps = min(round(self.warmup * steps), steps - 1)
        self.rate = float(np.float32(self.learning_rate))
        self.model.optimizer.learning_rate = self.rate
        self.best_value, self.best_weights = None, None
        self.start()

    def on_epoch_begin(self, epoch, logs=None):
        self.first_step = epoch * self.steps_per_epoch

    def on_train_batch_begin(self, batch, logs=None):
        step = self.first_step + batch
        if step < self.warmup_steps:
            self.model.optimizer.learning_rate = self.learning_rate * (step + 1) / self.warmup_steps

    def on_epoch_end(self, epoch, logs=None):
        value = float(logs[self.monitor])
        if self.keeps_best_weights and self.is_best(value):
            self.best_value = value
            self.best_weights = [np.array(array) for array in self.model.get_weights()]
        if self.first_step + self.steps_per_epoch >= self.warmup_steps:
            self.advance(value)
            self.model.optimizer.learning_rate = self.rate

    def on_train_end(self, logs=None):
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def is_best(self, value):
        """Whether a value is the best of all so far, the first of equals; only a finite one can be."""
        before = self.best_value
        return math.isfinite(value) and (before is None or self.sign * value > self.sign * before)

    def improves(self, value, best, min_delta):
        """Whether a value is better than the best so far by more than min_delta, in float32; a NaN never is."""
        if math.isnan(value) or best is None:
            return not math.isnan(value)
        return bool(np.float32(self.sign * value - min_delta) > np.float32(self.sign * best))


class ReduceOnPlateau(ClosedLoop):
    """After `patience` epochs without improvement: max(factor * rate, floor), then a cool-down.

    The rule of keras.callbacks.ReduceLROnPlateau.
    """

    def __init__(self, learning_rate, monitor, mode, factor, patience, min_delta, cooldown, floor, warmup=0.0):
        super().__init__(learning_rate, monitor, mode, warmup)
        self.factor, self.patience, self.min_delta = factor, patience, min_delta
        self.cooldown, self.floor = cooldown, floor

    def start(self):
        self.best, self.wait, self.cooldown_left = None, 0, 0

    def advance(self, value):
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.wait = 0
        if self.improves(value, self.best, self.min_delta):
            self.best, self.wait = value, 0
        elif self.cooldown_left == 0:
            self.wait += 1
            if self.wait >= self.patience:
                self.on_plateau()

    def on_plateau(self):
        if self.rate > float(np.float32(self.floor)):
            self.change(max(self.rate * self.factor, self.floor))

    def change(self, rate):
        self.rate = float(np.float32(rate))
        self.wait, self.cooldown_left = 0, self.cooldown


class PlateauWithRevert(ReduceOnPlateau):
    """Where factor * rate would be below the floor, goes back to the base rate; keeps the best weights.

    reset_best: whether that also forgets the best value, so that what follows is measured against itself.
    """

    keeps_best_weights = True

    def __init__(self, *args, reset_best, **kwargs):
        super().__init__(*args, **kwargs)
        self.reset_best = reset_best

    def on_plateau(self):
        if self.rate * self.factor < self.floor * (1.0 - 1e-6):  # a rate meant to land on the floor may be rounded
            if self.reset_best:
                self.best = None
            self.change(self.learning_rate)
        else:
            self.change(self.rate * self.factor)


class AdaptiveValidation(ClosedLoop):
    """Holds the rate while the metric improves, cuts it the faster the longer it does not; keeps the best weights.

    From the `patience`-th epoch in a row without improvement every one cuts, the n-th by factor^n, down to the floor.
    After `patience` such epochs there, a second descent begins at factor * base rate; after as many again at the
    floor, the training ends.
    """

    keeps_best_weights = True

    def __init__(self, learning_rate, monitor, mode, factor, patience, min_delta, floor, warmup=0.0):
        super().__init__(learning_rate, monitor, mode, warmup)
        self.factor, self.patience, self.min_delta = factor, patience, min_delta
        self.floor = float(np.float32(floor))

    def start(self):
        self.best, self.wait, self.descent = None, 0, 1

    def advance(self, value):
        if self.improves(value, self.best, self.min_delta):
            self.best, self.wait = value, 0
            return
        self.wait += 1
        if self.wait < self.patience:
            return
        if self.rate > self.floor:
            self.cut_to(self.rate * self.factor ** (self.wait - self.patience + 1))
            if self.rate == self.floor:
                self.wait = 0
        elif self.descent == 2:
            self.model.stop_training = True
        else:
            self.cut_to(self.factor * self.learning_rate)
            self.best, self.wait, self.descent = None, 0, 2

    def cut_to(self, rate):
        # a rate meant to land on the floor may be rounded
        self.rate = float(np.float32(rate)) if rate > self.floor * (1.0 + 1e-6) else self.floor


class Greedy(ClosedLoop):
    """Raises the rate while the metric improves, lowers it while it does not.

    The mean of the last `smoothing` values is compared with the one before: rate / factor at every `patience`-th
    improvement in a row, rate * factor at every `patience`-th epoch without, always within [low, high].
    """

    def __init__(self, learning_rate, monitor, mode, factor, patience, smoothing, low, high, warmup=0.0):
        super().__init__(learning_rate, monitor, mode, warmup)
        self.factor, self.patience, self.smoothing, self.low, self.high = factor, patience, smoothing, low, high

    def start(self):
        self.recent, self.run = [], 0

    def advance(self, value):
        better = False
        if math.isfinite(value):
            before, self.recent = self.recent, [*self.recent, value][-self.smoothing :]
            if not before:
                self.run = 0
                return
            means = [np.float32(self.sign * sum(values) / len(values)) for values in (self.recent, before)]
            better = bool(means[0] > means[1])
        self.run = max(self.run, 0) + 1 if better else min(self.run, 0) - 1
        if abs(self.run) >= self.patience:
            rate = self.rate / self.factor if better else self.rate * self.factor
            self.rate = float(np.float32(min(max(rate, self.low), self.high)))
            self.run = 0
