"""Asks for the stop of running trials that their study's pruner would end, beside the director's filling in.

Filling in may take longer than a short epoch does, and a trial that is asked to stop late has trained in vain.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy import Engine

from service import pruning
from service.database import ChangeSignal, is_away, reading, without_statement
from service.leading import Lead, LeadLost
from service.pruning import Pruning

log = logging.getLogger(__name__)

PRUNE_SECONDS = 0.02
"""How long after one look at what has come in the next one follows."""
AWAY_SECONDS = 1.0
"""How long after one that found no database."""


class Stopping:
    """The decisions of the director that leads. `step` makes those that are due; `run` does so until told to stop."""

    def __init__(self, engine: Engine, lead: Lead) -> None:
        self._engine = engine
        self._lead = lead
        self._epoch: int | None = None
        self._pruning = Pruning()

    def run(self, stop: threading.Event) -> None:
        """Decide until told to stop. A busy or absent database is waited for, any other error ends it."""
        signal = ChangeSignal(self._engine)
        try:
            while not stop.is_set():
                wait = PRUNE_SECONDS
                try:
                    if signal.changed():
                        self.step()
                except Exception as error:
                    if not is_away(error):
                        raise
                    log.warning("the database is busy or away, trying again: %s", without_statement(error))
                    wait = AWAY_SECONDS
                stop.wait(wait)
        finally:
            signal.close()

    def step(self) -> None:
        """Ask for the stops that are due, if this director leads."""
        epoch = self._lead.epoch
        if epoch is None or epoch != self._epoch:
            self._pruning = Pruning()  # others have decided since
        self._epoch = None  # until what is decided now is written
        if epoch is None:
            return
        with reading(self._engine) as connection:
            decisions = self._pruning.decide(connection)
        if decisions:
            try:
                with self._lead.writing() as connection:
                    pruning.mark(connection, decisions)
            except LeadLost:
                return
        self._epoch = epoch
