"""`run`: the daemon delivers on schedule and stops as told."""

import signal
import subprocess

from currents_bridge.testing.collector import Answer
from tests.installation import TIMEOUT_S, Site, until


def test_the_daemon_delivers_what_is_there_and_what_comes(site: Site) -> None:
    """Each poll finds what is new."""
    site.config["schedule"] = {"poll": "1s"}
    site.put_sample(count=10, seed=1)
    process = site.start("run")
    until(lambda: len(site.collector.by_id) == 10, process)
    site.put_sample(count=5, seed=2, offset=2)
    until(lambda: len(site.collector.by_id) == 15, process)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, log
    assert '"action":"daemon_stopped"' in log.replace(" ", "")
    assert site.collector.duplicates == 0


def test_the_first_sigterm_in_mid_delivery_drains_and_settles(site: Site) -> None:
    """What was begun is settled, nothing is sent twice, and the rest waits for the next run."""
    for offset in range(40):
        site.put_sample(count=400, seed=offset, offset=offset)
    site.config["delivery"] |= {"workers": 1, "max_in_flight": 1, "requests_per_second": 20}
    process = site.start("run")
    until(lambda: site.collector.request_count >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, log
    arrived = len(site.collector.by_id)
    assert 0 < arrived < 16_000
    states = site.json("status")["connectors"]["production"]
    assert states["events"]["sent"] == arrived
    site.config["delivery"]["requests_per_second"] = None
    site.once()
    assert (len(site.collector.by_id), site.collector.duplicates) == (16_000, 0)


def test_a_second_signal_stops_at_once_and_the_next_run_sends_the_rest(site: Site) -> None:
    """A hanging destination does not hold the operator."""
    site.put_sample(count=100)
    site.collector.answer_with(lambda _: Answer(delay_s=600))
    process = site.start("run")
    until(lambda: site.collector.request_count == 1, process)
    process.send_signal(signal.SIGINT)
    until_logged(process, "daemon_draining")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGINT
    site.collector.answer_with(lambda _: None)
    assert site.once()["events"]["sent"] == 100
    assert len(site.collector.by_id) == 100


def test_killed_in_mid_delivery_the_next_once_goes_straight_on(site: Site) -> None:
    """Claims of a dead process of this host are free at once; repeats keep their message id."""
    for offset in range(10):
        site.put_sample(count=400, seed=offset, offset=offset)
    site.config["delivery"] |= {"workers": 1, "max_in_flight": 1, "requests_per_second": 20}
    process = site.start("once")
    until(lambda: site.collector.request_count >= 2, process)
    process.kill()
    process.communicate()
    site.config["delivery"]["requests_per_second"] = None
    assert site.once()["events"]["sent"] == 4000
    assert len(site.collector.by_id) == 4000


def until_logged(process: subprocess.Popen[str], action: str) -> None:
    """Return once the program has logged the action."""
    assert process.stderr is not None
    for line in process.stderr:
        if action in line:
            return
    raise AssertionError(f"the program ended without {action}")
