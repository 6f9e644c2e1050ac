"""The task registry and the built-in tasks."""
