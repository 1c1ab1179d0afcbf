"""What the URL of this broker says: `sqs://region?fifo=true&prefix=shop-&endpoint=http://...`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_address
from urllib.parse import urlsplit

import botocore.session

from tidings.core.url import Url, parse_url
from tidings.errors import BadUrl

OPTIONS = ("endpoint", "fifo", "poll", "prefix", "topology", "visibility")
"""What may follow the `?` of the URL."""

_REGION = re.compile(r"[a-z]{2,6}(?:-[a-z]+){1,3}-\d{1,2}")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,40}")
_TOPOLOGY = ("declare", "verify", "none")
_POLL = (1, 20)
_VISIBILITY = (2, 3600)


@dataclass(frozen=True)
class Settings:
    """Settings of one connection. Credentials are none of them: they come from where the AWS tools take theirs.

    Attributes:
        region: As "eu-central-1".
        endpoint: Where an emulator or a private endpoint answers; None for AWS itself.
        fifo: True for FIFO topics and queues, which keep the order of a key.
        prefix: Begins the names of all topics and queues.
        topology: "declare" makes what is missing, "verify" only compares, "none" does not look.
        poll: Seconds that a queue is asked to wait for messages at most; closing may take as long.
        visibility: Seconds after which what was received and not deleted comes again.
        shown: The URL, as it may be shown.
    """

    region: str
    endpoint: str | None
    fifo: bool
    prefix: str
    topology: str
    poll: int
    visibility: int
    shown: str

    @property
    def is_here(self) -> bool:
        """True for an endpoint on this machine."""
        host = urlsplit(self.endpoint or "").hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def read_settings(text: str) -> Settings:
    """Read a URL.

    Raises:
        BadUrl: It says what cannot be.
    """
    url = parse_url(text, ("sqs",), OPTIONS)
    if url.user is not None or url.password is not None:
        cure = "leave out what is before the @: credentials come from the environment, as AWS_PROFILE or AWS_ROLE_ARN"
        raise BadUrl("sqs: the URL holds a user", cure)
    if url.port is not None or url.path:
        raise BadUrl(f"sqs: {url.safe} has more than a region", "write sqs://eu-central-1, and endpoint= for a host")
    options = url.options
    prefix = options.get("prefix", "")
    if not _PREFIX.fullmatch(prefix):
        raise BadUrl(f"sqs: prefix is {prefix[:60]!a}", "use at most 40 letters, digits, - and _")
    return Settings(
        _region(url),
        _endpoint(options),
        _word(options, "fifo", ("false", "true")) == "true",
        prefix,
        _word(options, "topology", _TOPOLOGY),
        _seconds(options, "poll", 5, *_POLL),
        _seconds(options, "visibility", 30, *_VISIBILITY),
        url.safe,
    )


def _region(url: Url) -> str:
    region = (url.host or "").lower()
    if _REGION.fullmatch(region) and (
        "endpoint" in url.options or _words(region) <= set().union(*map(_words, _known()))
    ):
        return region  # perhaps a new one, but made of words that regions are made of
    near = get_close_matches(region, _known(), 1)
    cure = f"did you mean {near[0]}? " if near else "write one as in sqs://eu-central-1; "
    raise BadUrl(f"sqs: {region[:60]!a} is no region of AWS", f"{cure}a newer boto3 knows newer regions")


def _words(region: str) -> set[str]:
    return set(region.split("-")[:-1])


@cache
def _known() -> tuple[str, ...]:
    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return tuple(each for partition in partitions for each in session.get_available_regions("sqs", partition))


def _endpoint(options: Mapping[str, str]) -> str | None:
    endpoint = options.get("endpoint")
    if endpoint is not None and not re.fullmatch(r"https?://[^/@\s]+/?", endpoint):
        raise BadUrl("sqs: endpoint is no address", "write endpoint=http://127.0.0.1:4566")
    return endpoint


def _word(options: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    word = options.get(name, words[0])
    if word not in words:
        raise BadUrl(f"sqs: {name} is {word[:60]!a}", f"it is one of {', '.join(words)}")
    return word


def _seconds(options: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and least <= int(text[:9]) <= most):
        raise BadUrl(f"sqs: {name} is {text[:60]!a}", f"it is a whole number of seconds from {least} to {most}")
    return int(text)
