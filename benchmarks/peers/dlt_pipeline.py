"""A dlt pipeline from S3 into a custom destination that posts batches to Segment, as dlt's documentation shows.

https://dlthub.com/docs/dlt-ecosystem/destinations/destination
dlt has no reader of Avro, so fastavro reads the files.
"""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import dlt
import fastavro
import requests
import typer

from benchmarks.peers.shared import EVENT_NAME, Work, first_bodies, properties_of

BATCH_EVENTS = 400  # 1.1 KB each, so they stay under Segment's 500 KB


def main(
    s3_url: Annotated[str, typer.Argument()],
    bucket: Annotated[str, typer.Argument()],
    sink_url: Annotated[str, typer.Argument()],
    *,
    objects: Annotated[int, typer.Option(help="Stop after so many objects")],
) -> None:
    """Send the first objects of a bucket."""
    work = Work()
    sent: list[int] = []  # events of each request; dlt calls the destination in several threads

    def segment(items: list[dict[str, Any]], _table: Any) -> None:
        body: dict[str, Any] = {"batch": [_message(event) for event in items], "sentAt": _iso(datetime.now(UTC))}
        write_key = (os.environ["BENCHMARK_WRITE_KEY"], "")
        requests.post(f"{sink_url}/v1/batch", json=body, auth=write_key, timeout=15).raise_for_status()
        sent.append(len(items))

    def currents() -> Iterator[list[dict[str, Any]]]:
        for body in first_bodies(s3_url, bucket, objects):
            events: Iterable[Any] = fastavro.reader(io.BytesIO(body))
            yield [event for event in events if event["external_user_id"]]

    with tempfile.TemporaryDirectory() as folder:
        # `direct`, and no nesting: items come as they are
        destination = dlt.destination(segment, batch_size=BATCH_EVENTS, naming_convention="direct", max_table_nesting=0)
        pipeline = dlt.pipeline("benchmark", pipelines_dir=folder, destination=destination)
        pipeline.run(dlt.resource(currents, name="events"))
    work.report(sum(sent))


def _message(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "track",
        "userId": event["external_user_id"],
        "anonymousId": event["user_id"],
        "messageId": event["id"],
        "event": EVENT_NAME,
        "timestamp": _iso(datetime.fromtimestamp(event["time"], UTC)),
        "properties": properties_of(event),
    }


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


if __name__ == "__main__":
    typer.run(main)
