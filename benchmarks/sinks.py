"""Sinks that play Segment for a benchmark, each in a process of its own.

nginx answers from memory and costs next to nothing, but does not look into requests. The Python sink is the testing
kit's collector, which decompresses each request and counts its events, so it takes CPU from what is measured.
"""

import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from currents_bridge.testing.collector import Collector

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


def nginx_binary() -> str | None:
    """Return the installed nginx, also where only an administrator's PATH has it."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


@contextmanager
def running_sink(kind: SinkKind, folder: Path) -> Iterator[str]:
    """Run a sink that keeps its files, if any, in `folder`; yields its base URL.

    Raises RuntimeError where it does not start.
    """
    with _nginx(folder) if kind.chosen() is SinkKind.NGINX else _python() as url:
        yield url


# One process without a master; what it has to write goes into its own folder, and nothing is logged but its faults.
_NGINX_CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
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
def _nginx(folder: Path) -> Iterator[str]:
    binary = nginx_binary()
    if binary is None:
        raise RuntimeError("there is no nginx on this machine: install it, or use --sink python")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config, log = folder / "nginx.conf", folder / "error.log"
    config.write_text(_NGINX_CONFIG.format(port=port))
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([binary, "-p", str(folder), "-c", str(config), "-e", str(log)])
    try:
        _wait_until_ready(url, process, log)
        yield url
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
def _python() -> Iterator[str]:
    context = multiprocessing.get_context("spawn")  # a fork would share the memory of what is measured
    ours, theirs = context.Pipe()
    process = context.Process(target=_collect, args=(theirs,), name="sink", daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_TIMEOUT_S):
            raise RuntimeError("the Python sink did not start")
        yield str(ours.recv())
    finally:
        ours.close()  # tells it to end
        process.join(STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()


def _collect(parent: Connection) -> None:
    """Serve until the parent closes its end of the pipe."""
    with Collector(remember=False) as collector:
        parent.send(collector.url)
        parent.poll(None)
