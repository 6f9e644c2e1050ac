"""A problem's model, compiled with a configuration's optimizer, all its variables made."""

from __future__ import annotations

from typing import Any

import keras

from studies.configuration import Configuration
from workers.tasks.problem import Data, Problem, take

EVALUATION_BATCH = 1024
"""Examples at a time in validation and test; larger than most training batches, since nothing is learned."""


def compiled(problem: Problem, configuration: Configuration) -> Any:
    """A fresh model of the problem, compiled with the configuration's optimizer, all its variables made."""
    model = problem.model()
    model.compile(
        optimizer=make_optimizer(configuration),
        loss=problem.loss,
        metrics=keras.tree.map_structure(_fresh, list(problem.metrics)),
    )
    _build(model, example_of(problem))
    return model


def example_of(problem: Problem) -> Data:
    """A batch of one: the first of the training data."""
    example: Data = take(problem.train, slice(0, 1))
    return example


def _build(model: Any, example: Data) -> None:
    """Make the variables of the model, its metrics and its optimizer, from one example.

    Left to itself, Keras on TensorFlow makes those of metrics and optimizer while it traces the first
    step: digits-mlp then takes 0.3 s longer to its first epoch, and TensorFlow never frees 2 MB per model.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(example)
    outputs = model(x)
    model.compute_loss(x, y, outputs, sample_weight=sample_weight)
    model.compute_metrics(x, y, outputs, sample_weight=sample_weight)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def make_optimizer(configuration: Configuration) -> Any:
    """The Keras optimizer of a configuration, at its base rate."""
    optimizer = configuration.make_optimizer()
    # To Keras, 0.0 is a decay to be computed, and None is none; AdamW alone refuses None.
    decay = configuration.weight_decay
    return getattr(keras.optimizers, optimizer.keras_name)(
        learning_rate=configuration.learning_rate,
        weight_decay=decay if decay or optimizer.keras_name == "AdamW" else None,
        **optimizer.model_dump(exclude={"type"}),
    )


def _fresh(metric: Any) -> Any:
    """A copy of a Metric object, which carries state from batch to batch; anything else as it is."""
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.Metric) else metric
