"""The lifecycle rules of a bucket that delete what Braze wrote.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html
"""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from currents_bridge.model import ExpiryRule

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import LifecycleRuleOutputTypeDef

_NOT_TOLD = {"AccessDenied", "MethodNotAllowed", "NotImplemented", "403", "405", "501"}  # numbers: only a status came


def expiry_rules(client: "S3Client", bucket: str) -> Sequence[ExpiryRule] | None:
    """Return the enabled rules that delete current objects; None where they may not be read or the server has none.

    Rules for tagged objects are left out, since Braze writes no tags. Rules for objects of some sizes are kept, since
    Currents files may have any. Raises what botocore raises, except for a denial.
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
    return [rule for told in answer.get("Rules", []) for rule in _rules(told)]


def _rules(told: "LifecycleRuleOutputTypeDef") -> Iterator[ExpiryRule]:
    expiration = told.get("Expiration", {})
    filters = told.get("Filter", {})
    both = filters.get("And", {})
    days, date = expiration.get("Days"), expiration.get("Date")
    tagged = "Tag" in filters or both.get("Tags")
    if told["Status"] == "Enabled" and not tagged and (days or date):
        prefix = filters.get("Prefix") or both.get("Prefix") or told.get("Prefix") or ""
        yield ExpiryRule(prefix, days, date.astimezone(UTC) if date else None)
