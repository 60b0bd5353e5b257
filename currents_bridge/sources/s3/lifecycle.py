"""The lifecycle rules of a bucket that delete what Braze wrote.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from currents_bridge.model import ExpiryRule

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import LifecycleRuleOutputTypeDef

_NOT_TOLD = {"AccessDenied", "MethodNotAllowed", "NotImplemented", "403", "405", "501"}  # numbers: only a status came
_NEVER_DAYS = 1_000_000  # some 2,700 years; nobody waits for that, and dates end before


def expiry_rules(client: "S3Client", bucket: str) -> Sequence[ExpiryRule] | None:
    """Return the enabled rules that delete current objects; None where they may not be read or cannot be understood.

    Rules for tagged objects are left out, since Braze writes no tags, and so are rules that can never delete anything.
    Rules for objects of some sizes are kept, since Currents files may have any. Raises what botocore raises, except for
    a denial.
    """
    try:
        answer = client.get_bucket_lifecycle_configuration(Bucket=bucket)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "NoSuchLifecycleConfiguration":
            return []
        if code in _NOT_TOLD:
            return None
        raise
    except (ValueError, OverflowError):  # botocore: days that are no number, a date that is none
        return None
    if "Rules" not in answer:  # a configuration has one at least; this is something else, as a proxy's page
        return None
    return [rule for told in answer["Rules"] for rule in _rules(told)]


def _rules(told: "LifecycleRuleOutputTypeDef") -> Iterator[ExpiryRule]:
    """Yield the rule if it deletes; one without a status, which S3 always has, counts, to be on the safe side."""
    expiration = told.get("Expiration", {})
    filters = told.get("Filter", {})
    both = filters.get("And", {})
    days, date = expiration.get("Days"), expiration.get("Date")
    tagged = "Tag" in filters or both.get("Tags")
    if told.get("Status", "Enabled") != "Enabled" or tagged:
        return
    prefix = filters.get("Prefix") or both.get("Prefix") or told.get("Prefix") or ""
    if days and 0 < days < _NEVER_DAYS:
        yield ExpiryRule(prefix, days)
    elif date:
        with suppress(OverflowError):  # at either end of time
            yield ExpiryRule(prefix, on=date.astimezone(UTC))
