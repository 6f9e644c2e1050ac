from __future__ import annotations

import httpx
import pytest

from studies.errors import Refused
from studies.preview import PreviewRequest
from tests.service.support import Service

REQUEST = {"schedule": {"type": "linear"}, "learning_rate": 0.2, "epochs": 2, "steps_per_epoch": 5}


def test_the_rates_of_a_schedule_come_without_a_study(service: Service) -> None:
    expected = [0.2 * (1 - step / 10) for step in range(10)]
    answer = httpx.post(f"{service.url}/api/v1/schedules/preview", json=REQUEST)
    assert answer.status_code == 200
    assert answer.json()["rates"] == pytest.approx(expected, rel=1e-6)
    assert service.client.preview(PreviewRequest.model_validate(REQUEST)).rates == answer.json()["rates"]


def test_bad_fields_are_named_with_their_values(service: Service) -> None:
    with pytest.raises(Refused) as refused:
        service.client.preview(PreviewRequest(schedule={"type": "linear", "alpha": -1}, learning_rate=0.1, epochs=2))
    assert refused.value.status == 422
    answer = httpx.post(
        f"{service.url}/api/v1/schedules/preview", json={**REQUEST, "schedule": {"type": "linear", "alpha": -1}}
    )
    (field,) = answer.json()["fields"]
    assert (field["field"], field["value"]) == ("schedule.alpha", -1)
    missing = httpx.post(f"{service.url}/api/v1/schedules/preview", json={"schedule": "linear"})
    assert {field["field"] for field in missing.json()["fields"]} == {"learning_rate", "epochs"}
    assert (
        httpx.post(f"{service.url}/api/v1/schedules/preview", json={**REQUEST, "schedule": "nonsense"}).status_code
        == 404
    )
