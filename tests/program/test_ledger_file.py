"""The ledger as a file: made where that is meant, lost under a daemon, copied and put back."""

from tests.installation import TIMEOUT_S, Site, until


def test_once_says_where_it_made_the_ledger(site: Site) -> None:
    """And only the first time."""
    site.put_sample(count=3)
    assert "ledger.sqlite3" in next(line for line in site.run("once").stderr.splitlines() if "ledger_made" in line)
    assert "ledger_made" not in site.run("once").stderr


def test_a_daemon_whose_ledger_is_removed_ends_with_a_sentence(site: Site) -> None:
    """It neither goes on in the removed file nor makes a new one, in which all would be sent again."""
    site.config["schedule"] = {"poll": "1s"}
    site.put_sample(count=10)
    process = site.start("run")
    until(lambda: len(site.collector.by_id) == 10, process)
    (site.folder / "ledger.sqlite3").unlink()
    _, log = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert log.splitlines()[-2] == (
        f"Error: the ledger {site.folder}/ledger.sqlite3 was removed while the program used it"
    )
    assert "Traceback" not in log
    assert not (site.folder / "ledger.sqlite3").exists()
    assert site.collector.duplicates == 0


def test_a_ledger_that_is_put_back_from_a_copy_loses_nothing(site: Site) -> None:
    """The copy was made beside a delivery; what came after it is found and sent again, with the same ids."""
    for offset in range(20):
        site.put_sample(count=100, seed=offset, offset=offset)
    site.config["delivery"] |= {"workers": 1, "max_in_flight": 1, "requests_per_second": 10, "max_batch_events": 100}
    process = site.start("run")
    until(lambda: site.collector.request_count >= 5, process)
    copied = site.json("ledger", "backup", "copy.sqlite3")
    until(lambda: site.collector.request_count >= 10, process)
    process.kill()
    process.communicate()
    assert copied["path"] == str(site.folder / "copy.sqlite3")

    for name in site.folder.glob("ledger.sqlite3*"):
        name.unlink()
    (site.folder / "copy.sqlite3").rename(site.folder / "ledger.sqlite3")
    site.config["delivery"]["requests_per_second"] = None
    site.put_sample(count=100, seed=20, offset=20)

    site.once()
    assert len(site.collector.by_id) == 2100
    assert site.run("reconcile").returncode == 0
