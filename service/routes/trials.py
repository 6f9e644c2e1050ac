"""Trials and their epochs."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query

from service import models, trials
from service.database import reading
from service.errors import responses
from service.state import ArenaState
from studies.protocol import EpochPage, ModelView, TrialDetail, TrialPage

router = APIRouter(tags=["trials"])

_MAX_ID = 2**63 - 1
TrialId = Annotated[int, Path(ge=1, le=_MAX_ID)]
Cursor = Annotated[int, Query(ge=0, le=_MAX_ID, description="`next_cursor` of the page before")]
EpochCursor = Annotated[int, Query(ge=0, le=2**31 - 1, description="`next_cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/studies/{study}/trials", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
def list_trials(study: str, state: ArenaState, cursor: Cursor = 0, limit: Limit = 200) -> TrialPage:
    """The trials of a study, in the order of their ids."""
    with reading(state.engine) as connection:
        return trials.page(connection, study, cursor, limit)


@router.get("/studies/{study}/models", responses=responses(HTTPStatus.NOT_FOUND))
def list_models(study: str, state: ArenaState) -> list[ModelView]:
    """The models that workers keep of a study: the best of each confirmed configuration. The service opens none."""
    with reading(state.engine) as connection:
        return models.kept(connection, study)


@router.get("/trials/{trial_id}", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
def get_trial(trial_id: TrialId, state: ArenaState) -> TrialDetail:
    """A trial with the history of its attempts."""
    with reading(state.engine) as connection:
        return trials.detail(connection, trial_id)


@router.get("/trials/{trial_id}/epochs", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
def list_epochs(trial_id: TrialId, state: ArenaState, cursor: EpochCursor = 0, limit: Limit = 1000) -> EpochPage:
    """The epochs of a trial's latest attempt, with the learning rates as applied."""
    with reading(state.engine) as connection:
        return trials.epoch_page(connection, trial_id, cursor, limit)
