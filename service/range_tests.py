"""Range tests, one per task of a study with `learning_rate: auto`: planned with it, judged at their end, shown.

A board waits for its range test (`boards.awaits_range_test`): until then no search trial of the task is filled in.
The director alone judges, whatever end the trial came to, so that no end can leave a study waiting for ever.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, select, update

from service.clock import Instant
from service.tables import RANGE_TEST_LANE, arms, boards, trials
from studies.definition import StudyDefinition
from studies.errors import FieldError, InvalidMessage, NotFound, RangeTestFailed
from studies.protocol import RangeTestDetail, RangeTestView
from studies.range_test import RangeCurve, RangeTest, analyse
from studies.seeds import training_seed
from studies.space import FlatSpace, Range
from studies.trial import TrialState

log = logging.getLogger(__name__)

_REASON_CHARACTERS = 300
"""How much of a failed trial's reason a study's warning repeats; the trial itself has all of it."""


def planned(definition: StudyDefinition, study_id: int, now: Instant) -> list[dict[str, Any]]:
    """The range tests of a new study as rows of trials: configured at once, since nothing is sampled."""
    configuration = definition.range_test_configuration().model_dump(mode="json")
    return [
        {
            "study_id": study_id,
            "task": task,
            "lane": RANGE_TEST_LANE,
            "phase": "range_test",
            "number": 0,
            "seed": training_seed(definition.search.seed, task, "range_test", 0),
            "state": TrialState.PLANNED,
            "configuration": configuration,
            "created_at": now,
        }
        for task in definition.tasks
    ]


# --- judging


def any_ended(connection: Connection, study_id: int) -> bool:
    """Whether a range test has ended that was not judged yet."""
    ended = _select(boards.c.study_id == study_id, boards.c.awaits_range_test, trials.c.finished_at.is_not(None))
    return connection.execute(ended.limit(1)).first() is not None


def judge(connection: Connection, study_id: int) -> None:
    """Let the search of each task begin whose range test has ended, over the range that it found.

    Where it found none, the optimizer's default range stays in the spaces and the board says why. A board is
    judged once; the spaces do not change after that.
    """
    ended = connection.execute(
        _select(boards.c.study_id == study_id, boards.c.awaits_range_test, trials.c.finished_at.is_not(None))
    ).all()
    for row in ended:
        verdict = found(TrialState(row.state), row.reason, _curve(row))
        of_task = connection.execute(
            select(arms.c.id, arms.c.space).where(arms.c.study_id == study_id, arms.c.task == row.task)
        ).all()
        spaces = {arm.id: FlatSpace.model_validate(arm.space) for arm in of_task}
        if isinstance(verdict, RangeTest):
            values: dict[str, Any] = {"range_test": verdict.model_dump(mode="json")}
            for arm_id, space in spaces.items():
                searched = with_base_rate(space, verdict).model_dump(mode="json")
                connection.execute(update(arms).where(arms.c.id == arm_id).values(space=searched))
        else:
            values = {"range_test_failure": _told(verdict, list(spaces.values()))}
        connection.execute(
            update(boards)
            .where(boards.c.study_id == study_id, boards.c.task == row.task)
            .values(awaits_range_test=False, **values)
        )


def found(state: TrialState, reason: str, curve: RangeCurve | None) -> RangeTest | str:
    """What a range test has found, or why it has found nothing."""
    if state != TrialState.COMPLETED or curve is None:
        return f"its trial {state}" + (f": {reason}" if reason else "")
    try:
        test = analyse(curve)
        Range(low=test.low, high=test.high, log=True)
    except RangeTestFailed as error:
        return str(error)
    except Exception as error:
        log.exception("a curve cannot be analysed")
        return f"its curve cannot be analysed: {type(error).__name__}: {error}"
    return test


def with_base_rate(space: FlatSpace, test: RangeTest) -> FlatSpace:
    """The space with the base rate searched over the range that the test found, on a log scale."""
    rate = Range(low=test.low, high=test.high, log=True)
    return space.model_copy(update={"domains": {**space.domains, "learning_rate": rate}})


def _told(why: str, spaces: Sequence[FlatSpace]) -> str:
    default = spaces[0].domains["learning_rate"]
    assert isinstance(default, Range)
    return (
        f"the range test gave no range for the base rate ({textwrap.shorten(why, _REASON_CHARACTERS)}); "
        f"the optimizer's default is searched, {default.low:g} to {default.high:g}"
    )


# --- reading


def views(connection: Connection, study_id: int) -> list[RangeTestView]:
    """The range tests of a study, in the order of its tasks; none without `learning_rate: auto`."""
    return [RangeTestView(**_fields(row)) for row in connection.execute(_select(boards.c.study_id == study_id))]


def detail(connection: Connection, study_id: int, study: str, task: str | None) -> RangeTestDetail:
    """The range test of a task with its curve; the task may be None if the study has only one.

    Raises NotFound if the study has no range tests or not this task, and InvalidMessage if it has several tasks.
    """
    rows = {row.task: row for row in connection.execute(_select(boards.c.study_id == study_id))}
    if not rows:
        raise NotFound("range test in the study", study)
    if task is None and len(rows) > 1:
        names = ", ".join(rows)
        raise InvalidMessage([FieldError("task", None, f"the study has several tasks; name one of: {names}")])
    row = rows.get(next(iter(rows)) if task is None else task)
    if row is None:
        raise NotFound("range test of the task", task, rows)
    return RangeTestDetail(**_fields(row), curve=_curve(row))


def _select(*where: Any) -> Any:
    return (
        select(boards, trials.c.id.label("trial_id"), trials.c.state, trials.c.reason, trials.c.range_curve)
        .join(trials, and_(trials.c.study_id == boards.c.study_id, trials.c.task == boards.c.task))
        .where(trials.c.phase == "range_test", *where)
        .order_by(boards.c.position)
    )


def _fields(row: Any) -> dict[str, Any]:
    return {
        "task": row.task,
        "trial_id": row.trial_id,
        "state": row.state,
        "found": None if row.range_test is None else RangeTest.model_validate(row.range_test),
        "failure": row.range_test_failure,
    }


def _curve(row: Any) -> RangeCurve | None:
    return None if row.range_curve is None else RangeCurve.model_validate(row.range_curve)
