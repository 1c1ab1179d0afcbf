"""A bucket of S3, or of what speaks its protocol."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import boto3
from botocore import exceptions as failures
from botocore.config import Config

from tidings.errors import BadUrl, BrokerError, BrokerRefused, BrokerUnavailable, Unreadable

_CONNECT, _READ = 3, 20  # seconds


class BucketPlace:
    """Objects under one prefix of a bucket. Credentials, region and endpoint are found as all AWS tools find theirs.

    Args:
        url: `s3://bucket/prefix`.

    Raises:
        BadUrl: It names no bucket.
    """

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9!_.*'()-]+)*)/?", url)
        if found is None:
            raise BadUrl("claims: the URL names no bucket", "write claims=s3://bucket/prefix")
        self._bucket, path = found[1], found[2]
        self._prefix = f"{path[1:]}/" if path else ""
        self.url = f"s3://{self._bucket}{path}"

    def check(self) -> None:
        """Raises BrokerRefused where it is not there or may not be used, BrokerUnavailable where nobody answers."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (failures.BotoCoreError, failures.ClientError) as error:
            raise self._trouble(error, "looked at") from error

    def put(self, name: str, data: bytes) -> None:
        """Put an object; S3 shows it whole or not at all."""
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + name, Body=data, ContentType="application/json"
            )
        except (failures.BotoCoreError, failures.ClientError) as error:
            raise self._later(error, "written") from error

    def get(self, name: str, most: int) -> bytes | None:
        """Read an object."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return bytes(found["Body"].read(most))
        except (failures.BotoCoreError, failures.ClientError, OSError) as error:
            if _code_of(error) == "NoSuchKey":
                return None
            if _code_of(error) in {"AccessDenied", "InvalidObjectState"} and self._is_usable():
                what = f"its data may not be read: {self.url}/{name}: {_code_of(error)}"
                raise Unreadable(what, "let the app read it, or restore it from the archive; then redrive") from error
            raise self._later(error, "read") from error

    def _is_usable(self) -> bool:
        try:
            self.check()
        except BrokerError:
            return False
        return True

    @cached_property
    def _client(self) -> Any:
        retries: Any = {"mode": "standard", "total_max_attempts": 2}
        config = Config(connect_timeout=_CONNECT, read_timeout=_READ, retries=retries, user_agent_extra="tidings")
        return boto3.session.Session().client("s3", config=config)

    def _later(self, error: Exception, done: str) -> BrokerError:
        """While an app runs, what is refused is waited for: somebody may mend it, and nothing is lost meanwhile."""
        trouble = self._trouble(error, done)
        return BrokerUnavailable(trouble.what, trouble.cure)

    def _trouble(self, error: Exception, done: str) -> BrokerError:
        said = " ".join(str(error).split())[:300]
        what = f"claims: {self.url} cannot be {done}: {said}"
        code = _code_of(error)
        if code in {"404", "NoSuchBucket"}:
            return BrokerRefused(what, "create the bucket, or correct claims= in the URL of the broker")
        if code in {"301", "PermanentRedirect", "400"}:
            return BrokerRefused(what, "set AWS_REGION to the bucket's, and check the credentials")
        if code:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]  # type: ignore[attr-defined]
            if status in {401, 403}:
                return BrokerRefused(what, "grant s3:PutObject, s3:GetObject and s3:ListBucket; check the credentials")
            return BrokerUnavailable(what, "it is tried again")
        if isinstance(error, failures.NoCredentialsError | failures.PartialCredentialsError | failures.NoRegionError):
            return BrokerRefused(what, "set AWS_PROFILE, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION")
        return BrokerUnavailable(what, "it is tried again; check the network and AWS_ENDPOINT_URL_S3")


def _code_of(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, failures.ClientError) else ""
