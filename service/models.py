"""The models that workers keep: which is the best of each confirmed configuration, and where it lies.

The service knows addresses alone. It opens none of them.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, func, select

from service.registry import study_id
from service.tables import arms, boards, trials, workers
from studies.protocol import KeptModel, ModelView


def kept(connection: Connection, study: str) -> list[ModelView]:
    """The best kept model of each task's schedule, in the order of the definition. Raises NotFound.

    Of equals the first by number, as workers choose which to keep (`workers.models.best`).
    """
    ident = study_id(connection, study)
    merit = case((boards.c.direction == "maximize", -trials.c.value), else_=trials.c.value)
    place = func.row_number().over(partition_by=trials.c.arm_id, order_by=(merit, trials.c.number))
    ranked = (
        select(
            arms.c.task,
            arms.c.schedule,
            arms.c.position.label("arm_position"),
            boards.c.position.label("board_position"),
            boards.c.metric,
            trials.c.id,
            trials.c.number,
            trials.c.seed,
            trials.c.value,
            trials.c.test_value,
            trials.c.model,
            trials.c.worker_id,
            place.label("place"),
        )
        .join(arms, arms.c.id == trials.c.arm_id)
        .join(boards, and_(boards.c.study_id == trials.c.study_id, boards.c.task == trials.c.task))
        .where(trials.c.study_id == ident, trials.c.model.is_not(None))
        .subquery()
    )
    rows = connection.execute(
        select(ranked, workers.c.name.label("worker"))
        .join(workers, workers.c.id == ranked.c.worker_id)
        .where(ranked.c.place == 1)
        .order_by(ranked.c.board_position, ranked.c.arm_position)
    )
    return [
        ModelView(
            task=row.task,
            schedule=row.schedule,
            trial_id=row.id,
            number=row.number,
            seed=row.seed,
            worker=row.worker,
            metric=row.metric,
            value=row.value,
            test_value=row.test_value,
            model=KeptModel.model_validate(row.model),
        )
        for row in rows
    ]
