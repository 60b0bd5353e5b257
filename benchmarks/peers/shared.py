"""What both peers do alike: read objects, choose properties, and say what their work took."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import boto3

EVENT_NAME = "Email Link Clicked"
IDENTITY = {"id", "user_id", "external_user_id", "time"}


def first_bodies(s3_url: str, bucket: str, objects: int) -> Iterator[bytes]:
    """Yield the first objects of a bucket, one after the other."""
    s3 = boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1")
    left = objects
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page["Contents"][:left]:
            yield s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        left -= len(page["Contents"])
        if left <= 0:
            return


def properties_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return what the event holds besides its identity."""
    return {name: value for name, value in event.items() if value is not None and name not in IDENTITY}


class Work:
    """Seconds and CPU from now on, children included."""

    def __init__(self) -> None:
        self._began_s, self._began_cpu_s = time.perf_counter(), _cpu_s()

    def report(self, sent: int) -> None:
        """Print the events sent and what they took, as one JSON document."""
        taken = {"seconds": time.perf_counter() - self._began_s, "cpu_s": _cpu_s() - self._began_cpu_s}
        print(json.dumps({"sent": sent} | taken))


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
