"""What `requests` does by the rules of `network`, for segment-analytics-python and Apprise, which build on it.

It reads the environment by itself, and sends the password of a `.netrc` entry for the host in place of a key. There is
no setting against that for sessions of others, so the functions are replaced for the process.
"""

from typing import Any

import requests.adapters
import requests.sessions

from currents_bridge.network.rules import proxy_for
from currents_bridge.network.urllib3_rules import lay_rules


def lay_requests_rules() -> None:
    """Have requests do so; idempotent."""
    lay_rules()
    adapters: Any = requests.adapters
    sessions: Any = requests.sessions
    adapters.select_proxy, sessions.get_netrc_auth = _select_proxy, _no_login


def _select_proxy(url: str, _: object) -> str | None:
    proxy = proxy_for(url)
    return proxy.url if proxy else None


def _no_login(*_: object, **__: object) -> None:
    return None
