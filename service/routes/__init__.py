"""The HTTP routes, a file per subject."""
