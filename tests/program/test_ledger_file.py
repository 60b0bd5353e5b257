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
