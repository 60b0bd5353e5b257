"""Where the quick way of reading from S3 goes: to the same place as boto3."""

from typing import Any

import pytest
from botocore.config import Config

from currents_bridge.sources.s3.store import S3ObjectStore

EU = {"region": "eu-central-1"}
OWN = "https://s3.acme.example:9000/s3"
ARN = "arn:aws:s3:us-west-2:123456789012:accesspoint/events"


@pytest.mark.parametrize(
    ("bucket", "options", "address"),
    [
        ("acme", {"region": "us-east-1"}, "https://acme.s3.amazonaws.com"),
        ("acme", EU, "https://acme.s3.eu-central-1.amazonaws.com"),
        ("ac.me", EU, "https://s3.eu-central-1.amazonaws.com/ac.me"),
        ("acme", EU | {"config": Config(use_fips_endpoint=True)}, "https://acme.s3-fips.eu-central-1.amazonaws.com"),
        (
            "acme",
            EU | {"config": Config(use_dualstack_endpoint=True)},
            "https://acme.s3.dualstack.eu-central-1.amazonaws.com",
        ),
        ("acme", EU | {"endpoint_url": OWN}, f"{OWN}/acme"),
        (ARN, {"region": "us-west-2"}, "https://events-123456789012.s3-accesspoint.us-west-2.amazonaws.com"),
    ],
)
def test_the_address_is_the_one_that_botocore_asks(
    bucket: str, options: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Region, dots in the name, FIPS, dual stack, a server of one's own, an access point."""
    for name, value in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)

    store = S3ObjectStore(bucket, **options)

    assert store._quick._store.config.get("endpoint_url_s3") == address
