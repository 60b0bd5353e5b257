from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from currents_bridge.testing.collector import Answer, Collector
from tests.played_segment import KEY, NO_CERTIFICATES, START, Clock, post

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> Clock:
    """A time that the test moves."""
    return Clock()


@pytest.fixture
def collector(clock: Clock) -> Iterator[Collector]:
    """A Segment that knows one key."""
    with Collector(write_keys={KEY}, now=clock) as running:
        yield running


def public_api(collector: Collector, path: str, **query: str) -> httpx.Response:
    """Ask the Public API with the right token."""
    bearer = {"Authorization": f"Bearer {collector.world.api_token}"}
    return httpx.get(f"{collector.url}{path}", params=query, headers=bearer, verify=NO_CERTIFICATES)


def counts(collector: Collector, metric: str, **changes: str) -> dict[str, Any]:
    """Return the counts of the ten minutes from the start on."""
    query = {
        "sourceId": collector.world.source_id,
        "startTime": START.isoformat(),
        "endTime": (START + 10 * MINUTE).isoformat(),
        "granularity": "MINUTE",
    }
    data: dict[str, Any] = public_api(collector, f"/delivery-overview/{metric}", **query | changes).json()["data"]
    return data


def settings_status(collector: Collector, key: str = KEY) -> int:
    """Return the status of the settings endpoint."""
    return httpx.get(f"{collector.url}/v1/projects/{key}/settings", verify=NO_CERTIFICATES).status_code


def test_a_key_dies_and_lives_again_at_its_time_behind_200s(collector: Collector, clock: Clock) -> None:
    """Events that come while it is dead are dropped."""
    collector.world.revoke_key(KEY, START + MINUTE)
    collector.world.add_key(KEY, START + 3 * MINUTE)

    taken = []
    for _ in range(5):
        before = len(collector.messages)
        assert post(collector) == 200
        taken.append(len(collector.messages) - before)
        clock.passes(MINUTE)

    assert taken == [1, 0, 0, 1, 1]
    assert len(collector.dropped) == 2


def test_without_a_list_of_keys_one_can_be_revoked_too() -> None:
    """Any other key is taken on."""
    with Collector() as collector:
        collector.world.revoke_key(KEY)
        for key in (KEY, "other"):
            post(collector, key=key)

    assert (len(collector.dropped), len(collector.messages)) == (1, 1)


@pytest.mark.parametrize("flaw", ["source_enabled", "source_elsewhere"])
def test_a_disabled_or_distant_source_takes_nothing_behind_a_200(collector: Collector, flaw: str) -> None:
    """The settings know the key on."""
    setattr(collector.world, flaw, flaw == "source_elsewhere")

    assert post(collector) == 200
    assert (len(collector.messages), len(collector.dropped)) == (0, 1)
    assert settings_status(collector) == 200


def test_the_settings_endpoint_lags_behind(collector: Collector, clock: Clock) -> None:
    """A revoked key is known on, and a new one is not yet."""
    collector.world.settings_lag = timedelta(hours=5)
    collector.world.revoke_key(KEY)
    collector.world.add_key("new")

    assert (settings_status(collector), settings_status(collector, "new")) == (200, 404)
    clock.passes(timedelta(hours=5))
    assert (settings_status(collector), settings_status(collector, "new")) == (404, 200)


def test_the_public_api_tells_the_source(collector: Collector) -> None:
    """It lists the living keys, unless they are hidden."""
    collector.world.add_key("new")

    source = public_api(collector, "/sources/braze-source").json()["data"]["source"]
    assert source == {"id": "braze-source", "enabled": True, "writeKeys": [KEY, "new"]}
    collector.world.keys_hidden = True
    assert public_api(collector, "/sources/braze-source").json()["data"]["source"]["writeKeys"] == []
    assert public_api(collector, "/sources/other").status_code == 404


def test_counts_come_from_what_arrived_for_living_keys(collector: Collector, clock: Clock) -> None:
    """Fit and unfit messages are counted by minute, and 30 s late."""
    post(collector, 3)
    post(collector, 2, event="")
    post(collector, 4, key="dead")
    clock.passes(MINUTE)
    post(collector, 5)

    received = counts(collector, "successfully-received")
    assert (received["total"], received["dataset"][0]["series"][:2]) == (
        3,
        [{"time": START.isoformat(), "count": 3}, {"time": (START + MINUTE).isoformat(), "count": 0}],
    )
    clock.passes(MINUTE)
    assert counts(collector, "successfully-received")["total"] == 8
    assert counts(collector, "failed-on-ingest")["total"] == 2


@pytest.mark.parametrize(
    ("granularity", "hours", "status"),
    [("MINUTE", 4, 200), ("MINUTE", 5, 422), ("HOUR", 14 * 24, 200), ("HOUR", 15 * 24, 422), ("DAY", 31 * 24, 422)],
)
def test_counts_have_the_limits_of_the_public_api(
    collector: Collector, granularity: str, hours: int, status: int
) -> None:
    """A finer granularity reaches less far."""
    query = {"sourceId": "braze-source", "granularity": granularity, "endTime": START.isoformat()}
    start = (START - timedelta(hours=hours)).isoformat()

    answer = public_api(collector, "/delivery-overview/successfully-received", startTime=start, **query)

    assert answer.status_code == status


def test_the_public_api_refuses_another_token(collector: Collector) -> None:
    """Also when the right one is changed."""
    collector.world.api_token = "another"
    bearer = {"Authorization": "Bearer public-api-token"}

    assert httpx.get(f"{collector.url}/sources/braze-source", headers=bearer, verify=NO_CERTIFICATES).status_code == 401


def test_answers_of_the_other_endpoints_can_be_scripted(collector: Collector) -> None:
    """By the start of their path; events go their usual way."""
    collector.world.answers["/v1/projects/"] = Answer(503)

    assert settings_status(collector) == 503
    assert post(collector) == 200
    assert collector.world.asked == [f"/v1/projects/{KEY}/settings"]
