"""Which processes are seen to have ended."""

import os
import subprocess
import sys
from dataclasses import replace

import psutil

from currents_bridge.ledger.owner import ProcessIdentity, has_ended, this_host, this_process


def test_this_process_lives() -> None:
    """It is found by its id and its start."""
    assert not has_ended(this_process(), this_host())


def test_another_process_under_the_same_id_is_another_one() -> None:
    """Process ids are used again."""
    assert has_ended(replace(this_process(), started_s=this_process().started_s - 60), this_host())


def test_nothing_is_known_of_another_host() -> None:
    """An id that no process of this host has says nothing there."""
    assert not has_ended(ProcessIdentity("elsewhere", 2**22 + 1, 1.0), this_host())
    assert has_ended(ProcessIdentity(this_host(), 2**22 + 1, 1.0), this_host())


def test_a_process_that_only_waits_to_be_reaped_has_ended() -> None:
    """A killed child of a careless parent keeps its id."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time() - psutil.boot_time()
        identity = ProcessIdentity(this_host(), child.pid, started)
        assert not has_ended(identity, this_host())
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(identity, this_host())
