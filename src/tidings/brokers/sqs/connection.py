"""Clients of SNS and SQS that never wait without an end, and what their errors mean."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore import exceptions as failures
from botocore.config import Config
from botocore.loaders import create_loader

from tidings.brokers.sqs.settings import Settings
from tidings.errors import BrokerError, BrokerRefused, BrokerUnavailable

CALLS = 16
"""Calls under way at once, besides those that wait for messages."""

_CONNECT = 3  # seconds; two attempts of connecting and reading and the pause between them stay below DEADLINE
_READ = 8
_MARGIN = 4  # seconds that an answer may take beyond the wait it was asked for
_REFUSED_CREDENTIALS = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue", "NotFound", "NotFoundException"} | {
    "QueueDoesNotExist"
}
_STATUS_OF_TROUBLE = 500


class Clients(NamedTuple):
    """Clients may be used by any thread.

    Attributes:
        sns: Topics.
        sqs: Queues.
        poller: Queues too, for calls that wait for messages.
        partition: As ARNs have it: "aws".
        account: The account, where the environment tells it.
    """

    sns: Any
    sqs: Any
    poller: Any
    partition: str
    account: str | None

    def close(self) -> None:
        """Close idle connections."""
        for client in (self.sns, self.sqs, self.poller):
            client.close()


def connect(settings: Settings) -> Clients:
    """Make clients; nothing is sent yet. Blocks.

    Raises:
        BrokerError: There are no credentials, or they cannot be read.
    """
    try:
        core = botocore.session.get_session()
        core.register_component("data_loader", _descriptions())
        session = boto3.session.Session(region_name=settings.region, botocore_session=core)
        found = session.get_credentials()
        account = getattr(found, "account_id", None) if found is not None else None
        if found is None and settings.is_here:
            core.set_credentials("anybody", "anybody")  # emulators take any, but requests have to be signed

        def client(service: str, read: int, attempts: int) -> Any:
            config = Config(
                connect_timeout=_CONNECT,
                read_timeout=read,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=CALLS,
                tcp_keepalive=True,
                parameter_validation=False,  # a third of the time of a call; requests are made in one place each
                user_agent_extra="tidings",
            )
            return session.client(service, endpoint_url=settings.endpoint, config=config)

        sns, sqs = client("sns", _READ, 2), client("sqs", _READ, 2)
        return Clients(sns, sqs, client("sqs", settings.poll + _MARGIN, 1), sns.meta.partition, account)
    except (failures.BotoCoreError, ValueError) as error:
        raise trouble(error, settings, "connect") from error


def reach(clients: Clients, settings: Settings, name: str) -> None:
    """Is anybody there, and are we known to them? Blocks.

    Args:
        clients: To ask with.
        settings: Of the connection.
        name: Of a queue that need not exist.

    Raises:
        BrokerError: No; says why.
    """
    try:
        clients.sqs.get_queue_url(QueueName=name)
    except Exception as error:
        meaning = trouble(error, settings, "connect")
        denied = "AccessDenied" in code_of(error)  # who only publishes need not have rights here
        if not is_missing(error) and not denied:
            raise meaning from error


@cache
def _descriptions() -> Any:
    """What botocore knows about the services; shared, for reading it is most of the work of making a client."""
    return create_loader()


def code_of(error: BaseException) -> str:
    """The code of an error that AWS answered, "" for any other."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, failures.ClientError) else ""


def is_missing(error: BaseException) -> bool:
    """Does it say that a topic or queue is not there?"""
    return code_of(error) in _MISSING


def trouble(error: Exception, settings: Settings, doing: str) -> BrokerError:
    """What an error of a call means.

    Args:
        error: As the client raised it.
        settings: Of the connection.
        doing: What was tried, as "publish to the topic orders".
    """
    where = f"SQS in {settings.region}" + (f" at {settings.endpoint}" if settings.endpoint else "")
    what = f"{where}: cannot {doing}"
    if isinstance(error, failures.ClientError):
        return _answered(error, what)
    if isinstance(error, (failures.NoCredentialsError, failures.PartialCredentialsError)):
        cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is given"
        return BrokerRefused(f"{what}: there are no credentials", cure)
    if isinstance(error, failures.SSLError):
        return BrokerRefused(f"{what}: TLS failed: {_line(error)}", "set AWS_CA_BUNDLE where a proxy has its own CA")
    if isinstance(error, (failures.HTTPClientError, failures.ConnectionError)):
        return BrokerUnavailable(f"{what}: {_line(error)}", "it is tried again; check the network and the region")
    if isinstance(error, (failures.BotoCoreError, ValueError)):
        return BrokerRefused(f"{what}: {_line(error)}", "check AWS_PROFILE and the files in ~/.aws")
    return BrokerUnavailable(f"{what}: {type(error).__name__}: {_line(error)}", "it is tried again")


def _answered(error: Any, what: str) -> BrokerError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    said = f"{what}: {code}: {_line(error.response.get('Error', {}).get('Message', ''))}"
    if status >= _STATUS_OF_TROUBLE or "Thrott" in code or code in {"OverLimit", "QueueDeletedRecently"}:
        return BrokerUnavailable(said, "it is tried again")
    return BrokerRefused(said, _cure(code))


def _cure(code: str) -> str:
    """What mends a refusal; "" where the request itself is wrong."""
    if code in _REFUSED_CREDENTIALS or "TokenId" in code:
        return "check the credentials, and that they are of this account and partition"
    if "ExpiredToken" in code:
        return "renew the session credentials: aws sso login, or a new AWS_SESSION_TOKEN"
    if code in {"RequestExpired", "RequestTimeTooSkewed"}:
        return "set the clock of this machine"
    if "AccessDenied" in code or "Authorization" in code or code.upper().startswith("KMS"):
        return "grant the actions that docs/sqs.md lists, also on the KMS key where there is one"
    if code in _MISSING:
        return "declare it: leave out topology= once, or apply `tidings topology export`"
    return ""


def _line(what: object) -> str:
    return " ".join(str(what).split())[:300]
