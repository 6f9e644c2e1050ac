"""The task registry and the built-in tasks. What users need is here, and does not load Keras."""

from workers.tasks.problem import Problem, split
from workers.tasks.registry import Task, load, task

__all__ = ["Problem", "Task", "load", "split", "task"]
