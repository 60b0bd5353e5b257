"""The SNS topic that alerts go to."""

from hashlib import blake2b
from typing import Any

import boto3
import orjson
from botocore.config import Config
from botocore.exceptions import ClientError

from currents_bridge.alerts.engine import as_json, title
from currents_bridge.errors import RetryLaterError
from currents_bridge.model import AlertMessage
from currents_bridge.network.aws import SETUP_ERRORS, VENDOR_ERRORS, open_session, setup, setup_error
from currents_bridge.network.clients import network_trouble
from currents_bridge.network.deadline import within

SUBJECT_CHARS = 99  # SNS takes ASCII, under 100 characters, without line breaks
TIMEOUT_S = 30.0  # of one message, with botocore's repetitions and the credentials
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=5, read_timeout=10)
# the last four: what botocore raises for an answer that is none of SNS
_ERRORS: tuple[type[Exception], ...] = (*VENDOR_ERRORS, LookupError, ValueError, TypeError, AttributeError)


class SnsChannel:
    """Fulfils `ports.Channel` with a topic: the title as subject, `alerting.as_json` as message.

    The identity that the program runs as needs `sns:Publish` on the topic, which must not be a FIFO topic.
    """

    def __init__(self, topic_arn: str) -> None:
        self.name = f"alerts.sns_topic_arn (SNS {topic_arn.rpartition(':')[2]})"
        self.fingerprint = blake2b(topic_arn.encode(), digest_size=16).hexdigest()
        self._arn = topic_arn
        self._region = topic_arn.split(":")[3]  # arn:aws:sns:REGION:ACCOUNT:NAME

    def tell(self, message: AlertMessage) -> None:
        """Deliver one message; see `ports.Channel`."""
        subject = title(message).encode("ascii", "replace").decode()[:SUBJECT_CHARS]
        try:
            body = orjson.dumps(as_json(message)).decode()
            with within(TIMEOUT_S):
                self._client().publish(TopicArn=self._arn, Subject=subject, Message=body)
        except SETUP_ERRORS as error:
            found = setup_error(error)
            raise RetryLaterError(f"{self.name} cannot be told: {found.what}", found.hint) from None
        except _ERRORS as error:
            name = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            code = network_trouble(error) or name
            hint = "check the topic and the AWS credentials, and grant sns:Publish on it, then run `alerts test`"
            raise RetryLaterError(f"{self.name} did not take the message: {code}", hint) from None

    def _client(self) -> Any:
        """Return a client with credentials of now: messages are few, and a topic that is denied fails by itself."""
        with setup():
            session = boto3.session.Session(botocore_session=open_session())
            return session.client("sns", region_name=self._region, config=CONFIG)
