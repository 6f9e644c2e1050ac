"""What schemathesis is told before it begins."""

from __future__ import annotations

from typing import Any

import schemathesis

MOST_ALTERNATIVES = 25


@schemathesis.hook
def before_load_schema(_context: Any, document: dict[str, Any]) -> None:
    """Show it some of the schedules alone: with all 29 it finds the definition of a study too large to make up."""
    del document["components"]["schemas"]["ScheduleEntry"]["anyOf"][MOST_ALTERNATIVES:]
