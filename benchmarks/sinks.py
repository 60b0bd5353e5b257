"""Sinks that play Segment for a benchmark, each in a process of its own, and count what they receive.

nginx answers from memory and costs next to nothing, but does not look into requests and cannot wait. The Python sink
is the testing kit's collector: it decompresses each request, about 2 us an event on the cores of what is measured,
and answers as late as it is told to.
"""

import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from currents_bridge.testing.collector import Answer, Collector, RequestInfo

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


class SinkKind(StrEnum):
    """Which sink to use; auto: nginx where it is installed."""

    AUTO = "auto"
    NGINX = "nginx"
    PYTHON = "python"

    def chosen(self) -> "SinkKind":
        """Return nginx or python."""
        if self is not SinkKind.AUTO:
            return self
        return SinkKind.NGINX if nginx_binary() else SinkKind.PYTHON


@dataclass(frozen=True, slots=True)
class Received:
    """What a sink got."""

    requests: int
    wire_bytes: int  # bodies as they were sent, so compressed ones as such; without headers


class Sink:
    """A running sink at `url`, which writes the bytes of each request's body as a line of `log`."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log
        self._seen_bytes = log.stat().st_size

    def received(self) -> Received:
        """Return what came since the last call."""
        with self._log.open("rb") as log:
            log.seek(self._seen_bytes)
            lines = log.readlines()
            self._seen_bytes = log.tell()
        return Received(len(lines), sum(map(int, lines)))


def nginx_binary() -> str | None:
    """Return the installed nginx, also where only an administrator's PATH has it."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def running_sink(kind: SinkKind, folder: Path) -> AbstractContextManager[Sink]:
    """Run a sink that keeps its files in `folder`; raises RuntimeError where it does not start."""
    return _nginx(folder) if kind.chosen() is SinkKind.NGINX else python_sink(folder)


# One process without a master; what it has to write goes into its own folder. `$request_length` would leave out the
# bodies, since nginx throws them away unread.
_NGINX_CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 512; }}
http {{
  log_format body_bytes '$content_length';
  access_log requests.log body_bytes;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_body_buffer_size 1m;
  client_max_body_size 1m;
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port};
    location = /v1/batch {{
      default_type application/json;
      return 200 '{{"success": true}}';
    }}
  }}
}}
"""


@contextmanager
def _nginx(folder: Path) -> Iterator[Sink]:
    binary = nginx_binary()
    if binary is None:
        raise RuntimeError("there is no nginx on this machine: install it, or use --sink python")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config, log = folder / "nginx.conf", folder / "error.log"
    config.write_text(_NGINX_CONFIG.format(port=port), encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([binary, "-p", str(folder), "-c", str(config), "-e", str(log)])
    try:
        _wait_until_ready(url, process, log)
        yield Sink(url, folder / "requests.log")
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if httpx.post(f"{url}/v1/batch", content=b"{}", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    raise RuntimeError(f"nginx did not start (exit code {process.poll()}):\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def python_sink(folder: Path, *, delay_s: float = 0.0) -> Iterator[Sink]:
    """Run a collector that answers each request so many seconds after its arrival."""
    log = folder / f"requests-{delay_s}.log"
    log.touch()
    context = multiprocessing.get_context("spawn")  # a fork would share the memory of what is measured
    ours, theirs = context.Pipe()
    process = context.Process(target=_collect, args=(theirs, log, delay_s), name="sink", daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_TIMEOUT_S):
            raise RuntimeError("the Python sink did not start")
        yield Sink(str(ours.recv()), log)
    finally:
        ours.close()  # tells it to end
        process.join(STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()


def _collect(parent: Connection, log: Path, delay_s: float) -> None:
    """Serve until the parent closes its end of the pipe."""
    with collecting(Collector(remember=False), log, delay_s) as sink:
        parent.send(sink.url)
        parent.poll(None)


@contextmanager
def collecting(collector: Collector, log: Path, delay_s: float = 0.0) -> Iterator[Sink]:
    """Run a collector in this process as a sink."""

    def answer(request: RequestInfo) -> Answer:
        lines.write(b"%d\n" % request.bytes_wire)
        return Answer(delay_s=delay_s)

    with log.open("ab", buffering=0) as lines, collector:
        collector.answer_with(answer)
        yield Sink(collector.url, log)
