import math

import pytest

from currents_bridge.network.deadline import TooLateError, hasten, left_s, within


def test_a_stop_ends_what_is_asked_of_others_before_its_deadline() -> None:
    """Also what began before it; and what the process does not end by is left as it was."""
    with within(60.0):
        hasten(0.0)
        try:
            with pytest.raises(TooLateError):
                left_s(60.0)
        finally:
            hasten(math.inf)
        assert left_s(30.0) == 30.0
