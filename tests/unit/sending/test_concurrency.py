import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from currents_bridge.errors import RefusedError, RetryLaterError
from currents_bridge.sending.concurrency import AdaptiveLimit, LimitRule

MAX = 16
Latency = Callable[[int, float], float]  # requests in flight, time in seconds -> round trip in seconds


@dataclass
class Simulation:
    """A client with always one more batch to send, and a collector whose round trips follow a model.

    Attributes:
        latency: the model.
        fails: whether a request that ends at a time is answered 503.
        limits: each answer's time, and the limit after it.
        acknowledged: how many answers were no failures.
    """

    latency: Latency
    fails: Callable[[float], bool] = lambda _: False
    jitter: float = 0.2
    limits: list[tuple[float, int]] = field(default_factory=list)
    acknowledged: int = 0

    def run(self, seconds: float) -> "Simulation":
        """Let the client send for so long."""
        rule, dice = LimitRule(MAX), Random(1)
        under_way: list[tuple[float, float]] = []  # end, round trip
        now_s = 0.0
        while now_s < seconds:
            while len(under_way) < rule.limit:
                rule.began(len(under_way) + 1)
                round_trip_s = self.latency(len(under_way) + 1, now_s) * dice.uniform(1 - self.jitter, 1 + self.jitter)
                heapq.heappush(under_way, (now_s + round_trip_s, round_trip_s))
            now_s, round_trip_s = heapq.heappop(under_way)
            if self.fails(now_s):
                rule.overloaded(now_s)
            else:
                rule.answered(now_s, round_trip_s)
                self.acknowledged += 1
            self.limits.append((now_s, rule.limit))
        return self

    def at(self, instant_s: float) -> int:
        """Return the limit at a time."""
        return next(limit for now_s, limit in reversed(self.limits) if now_s <= instant_s)

    def first(self, limit: int) -> float:
        """Return when the limit was that high for the first time, in seconds."""
        return next((now_s for now_s, reached in self.limits if reached >= limit), float("inf"))


@pytest.mark.parametrize("round_trip_s", [0.001, 0.02, 0.1, 0.2])
def test_a_healthy_destination_gets_16_requests_at_once_within_about_a_second(round_trip_s: float) -> None:
    """The limit doubles with each round trip until there are signs of load."""
    simulation = Simulation(lambda _, __: round_trip_s).run(30)

    assert simulation.first(16) <= max(1.0, 7 * round_trip_s)
    assert simulation.acknowledged >= 0.9 * 30 * 16 / round_trip_s


MODELS: dict[str, Latency] = {
    "queue behind 4 servers": lambda n, _: 0.05 * max(1, n / 4),
    "thrashing beyond 2": lambda n, _: 0.05 * (1 + (n / 2) ** 2),
    "thrashing beyond 4": lambda n, _: 0.05 * (1 + (n / 4) ** 2),
    "thrashing beyond 8": lambda n, _: 0.05 * (1 + (n / 8) ** 2),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seconds", [20, 300])
def test_it_finds_a_good_number_where_latency_grows_with_load(model: str, seconds: int) -> None:
    """Throughput is at least half of the best possible one, and does not drift away from it with time."""
    latency = MODELS[model]
    best_per_s = max(n / latency(n, 0) for n in range(1, MAX + 1))

    simulation = Simulation(latency).run(seconds)

    assert simulation.acknowledged / seconds >= best_per_s / 2


def test_round_trips_of_a_few_milliseconds_are_no_load() -> None:
    """On one machine threads wait for each other; fewer of them would not be faster."""
    simulation = Simulation(lambda n, _: 0.001 * n, jitter=0.9).run(10)

    assert simulation.at(1) == 16
    assert simulation.at(9) == 16


def test_it_falls_within_seconds_when_the_destination_is_overloaded_and_recovers() -> None:
    """From 16 to 1 while every answer is 503, and back afterwards."""
    simulation = Simulation(lambda _, __: 0.1, fails=lambda now_s: 10 <= now_s < 20).run(30)

    assert simulation.at(10) == 16
    assert simulation.at(13) <= 2
    assert simulation.at(19) == 1
    assert simulation.at(25) >= 12


def test_it_halves_within_seconds_when_part_of_the_answers_says_overload() -> None:
    """A third of 503s is overload as well."""
    dice = Random(2)
    simulation = Simulation(lambda _, __: 0.1, fails=lambda now_s: now_s >= 10 and dice.random() < 0.3).run(15)

    assert simulation.at(10) == 16
    assert simulation.at(13) <= 8


def test_it_recovers_where_the_destination_becomes_slower_for_good() -> None:
    """Alone in flight, a request shows what is normal now; five times the round trip is no load then."""
    simulation = Simulation(lambda _, now_s: 0.02 if now_s < 10 else 0.1).run(30)

    assert min(limit for now_s, limit in simulation.limits if now_s > 10) == 1
    assert simulation.at(25) >= 12


def test_it_does_not_grow_beyond_what_is_used() -> None:
    """One request at a time is no evidence that two would do."""
    rule = LimitRule(MAX)

    rule.limit = 4
    for now_s in range(1, 100):
        rule.began(1)
        rule.answered(float(now_s), 0.1)

    assert rule.limit == 4


@pytest.mark.parametrize("max_limit", [1, 3, 50])
def test_it_stays_between_one_and_the_highest(max_limit: int) -> None:
    """Neither growth nor overload leads outside."""
    rule = LimitRule(max_limit)
    for now_s in range(1, 100):
        rule.began(max_limit)
        rule.answered(float(now_s), 0.1)
    assert rule.limit == max_limit

    for now_s in range(100, 200):
        rule.overloaded(float(now_s))
    assert rule.limit == 1


def test_places_are_as_many_as_the_limit() -> None:
    """The first request goes alone; its answers open the places for more."""
    ticks = iter(range(1000))
    limit = AdaptiveLimit(MAX, clock=lambda: float(next(ticks)))
    entered = threading.Event()

    def enter() -> None:
        with limit.place():
            entered.set()

    with limit.place():
        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.05)
        for _ in range(3):
            with limit.request():
                pass
    waiting.join(10)

    assert entered.is_set()
    assert limit.limit > 1


def test_only_overload_and_silence_count_against_the_destination() -> None:
    """A refused message is an answer as good as any."""
    ticks = iter(range(1000))
    limit = AdaptiveLimit(MAX, clock=lambda: float(next(ticks)))
    for _ in range(3):
        with limit.request():
            pass
    before = limit.limit

    with pytest.raises(RefusedError), limit.request():
        raise RefusedError("400")
    assert limit.limit == before

    with pytest.raises(RetryLaterError), limit.request():
        raise RetryLaterError("503")
    assert limit.limit < before
