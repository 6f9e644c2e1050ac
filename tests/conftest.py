"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Derandomised: the same examples on every machine and run, and no database of them in the tree.
settings.register_profile("arena", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("arena")
