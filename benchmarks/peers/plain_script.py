"""What anyone would write first: boto3, fastavro and segment-analytics-python, as the library's documentation shows.

https://segment.com/docs/connections/sources/catalog/libraries/server/python/
It remembers nothing, so a second run sends everything again.
"""

import io
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import fastavro
import typer
from segment.analytics.client import Client

from benchmarks.peers.shared import EVENT_NAME, Work, first_bodies, properties_of

# With the default of 10,000 the client drops events while its thread lags behind, so no script could do with it.
MAX_QUEUE_SIZE = 1_000_000


def main(
    s3_url: Annotated[str, typer.Argument()],
    bucket: Annotated[str, typer.Argument()],
    sink_url: Annotated[str, typer.Argument()],
    *,
    objects: Annotated[int, typer.Option(help="Stop after so many objects")],
    tuned: Annotated[bool, typer.Option("--tuned", help="gzip, four threads, larger batches")] = False,
) -> None:
    """Send the first objects of a bucket."""
    work = Work()
    options = {"gzip": True, "thread": 4, "upload_size": 2500} if tuned else {}
    failures: list[Exception] = []
    client = Client(
        os.environ["BENCHMARK_WRITE_KEY"],
        host=sink_url,
        max_queue_size=MAX_QUEUE_SIZE,
        on_error=lambda error, _: failures.append(error),
        **options,
    )
    sent = 0
    for body in first_bodies(s3_url, bucket, objects):
        events: Iterable[Any] = fastavro.reader(io.BytesIO(body))
        for event in events:
            if not event["external_user_id"]:
                continue
            taken, _ = client.track(
                user_id=event["external_user_id"],
                anonymous_id=event["user_id"],
                event=EVENT_NAME,
                properties=properties_of(event),
                timestamp=datetime.fromtimestamp(event["time"], UTC),
                message_id=event["id"],
            )
            if not taken:
                raise RuntimeError("the client dropped an event")
            sent += 1
    client.flush()
    if failures:
        raise failures[0]
    work.report(sent)
    client.shutdown()


if __name__ == "__main__":
    typer.run(main)
