"""What botocore does by the rules of `network`, for every client of AWS and for what fetches its credentials.

botocore chooses a proxy when it makes a client, by rules of its own, and hands it to each request; credentials of roles
come by further clients that it makes itself. So the choice is made here for each request, in the place where botocore
looks it up. `Config(proxies=...)` still overrules it.
"""

from collections.abc import Mapping
from typing import Any

import botocore.endpoint
import botocore.utils
from botocore.httpsession import ProxyConfiguration

from currents_bridge.network.rules import proxy_for
from currents_bridge.network.urllib3_rules import lay_rules

_BY_RULE = {"by": "network.proxy_for"}  # in the place of what botocore reads from the environment

_url_for = ProxyConfiguration.proxy_url_for


def lay_aws_rules() -> None:
    """Have botocore do so; idempotent."""
    lay_rules()
    for module in (botocore.endpoint, botocore.utils):
        there: Any = module
        there.get_environ_proxies = _environment
    configuration: Any = ProxyConfiguration
    configuration.proxy_url_for = _proxy_url_for


def _environment(_: str) -> Mapping[str, str]:
    return _BY_RULE


def _proxy_url_for(configuration: ProxyConfiguration, url: str) -> str | None:
    if configuration._proxies is not _BY_RULE:  # type: ignore[attr-defined] # noqa: SLF001
        return _url_for(configuration, url)
    proxy = proxy_for(url)
    return proxy.url if proxy else None
