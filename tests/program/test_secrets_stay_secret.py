"""No secret in any output: canaries are planted everywhere, all that can fail fails, and what came out is read."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from currents_bridge.testing.loopback import Answer
from tests.installation import Site

CANARY = "Canary7f3a"
WRITE_KEY = f"{CANARY}WriteKeyWriteKeyWriteKey"
TOKEN = f"{CANARY}PublicApiToken"
WEBHOOK = f"{CANARY}Webhook"
AWS_SECRET = f"{CANARY}AwsSecretAwsSecretAwsSecretAwsS"
COMMANDS = (("check",), ("check", "--json"), ("once", "-v"), ("status",), ("status", "--json"), ("alerts", "list"))


@pytest.fixture
def failing(site: Site) -> Site:
    """An installation in which every answer is a refusal that repeats what it was asked with."""
    (site.folder / "token").write_text(TOKEN)
    url = site.collector.url
    site.connector["destination"] |= {
        "settings_endpoint_url": url,
        "public_api": {"token": f"file:{site.folder / 'token'}", "source_id": "braze-source", "endpoint_url": url},
    }
    site.config["alerts"] = {"urls": ["env:WEBHOOK"], "heartbeat_url": "env:WEBHOOK"}
    site.environ |= {
        "TEST_WRITE_KEY": WRITE_KEY,
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "WEBHOOK": f"{url}/hooks/{WEBHOOK}?token={WEBHOOK}",
    }
    echoed = {"/v1/projects": WRITE_KEY, "/sources": f"{TOKEN} {WRITE_KEY}", "/hooks": WEBHOOK}
    site.collector.world.answers = {path: Answer(403, body=f"no {secret}") for path, secret in echoed.items()}
    site.collector.answer_with(lambda _: Answer(403, body=f"no {WRITE_KEY}"))
    site.put_sample()
    return site


def outputs(site: Site) -> dict[str, str]:
    """Return all that some commands said, and all that they left in files of theirs."""
    said = {}
    for command in COMMANDS:
        done = site.run(*command)
        said[" ".join(command)] = done.stdout + done.stderr
    for file in site.folder.glob("ledger*"):
        said[file.name] = file.read_bytes().decode("latin-1")
    return said


def test_no_secret_is_in_what_a_failing_run_says_or_keeps(failing: Site) -> None:
    """Neither logs at debug level, nor tables, nor JSON, nor the ledger."""
    said = outputs(failing)
    assert "403" in said["once -v"]
    assert "failing" in said["status"]
    assert {name for name, text in said.items() if CANARY in text} == set()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("destination", "write_key"), WRITE_KEY),
        (("destination", "write_keys"), [WRITE_KEY]),
        (("destination", "public_api"), {"token": TOKEN, "source_id": "x"}),
        (("destination", "oauth"), {"client_id": "a", "key_id": "b", "private_key": TOKEN}),
        (("source", "endpoint_url"), f"http://user:{AWS_SECRET}@127.0.0.1:1"),
    ],
)
def test_a_secret_that_is_pasted_into_the_configuration_is_not_repeated(
    site: Site, place: tuple[str, str], value: object
) -> None:
    """It is refused, and the problem names the field."""
    section, key = place
    site.connector[section][key] = value
    done = site.run("check", "-v")
    assert done.returncode == 2
    assert key in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_a_private_key_that_does_not_fit_is_not_repeated(site: Site) -> None:
    """Not even a line of it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    broken = pem.replace(pem.splitlines()[3], CANARY * 6)
    path = Path(site.folder / "private.pem")
    path.write_text(broken)
    site.connector["destination"]["oauth"] = {
        "client_id": "a",
        "key_id": "b",
        "private_key": f"file:{path}",
        "endpoint_url": site.collector.url,
    }
    site.put_sample()
    done = site.run("once", "-v")
    assert done.returncode == 3, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert pem.splitlines()[5] not in done.stdout + done.stderr
