"""LR Arena: find out, with evidence, which learning-rate schedule wins on your task."""
