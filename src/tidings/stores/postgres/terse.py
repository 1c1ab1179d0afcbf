"""Errors of the database in one line: what is wrong, without the place in the statement and without hints."""

from __future__ import annotations

import re

import psycopg

LONGEST = 500
_ADVICE = re.compile(r"\s+Is the server running [^?]*\?")


def shorten(error: psycopg.Error) -> None:
    """Leave of an error's text what is wrong, and with which row."""
    told = [error.diag.message_primary, error.diag.message_detail]
    text = " ".join(". ".join(filter(None, told)).split()) or " ".join(_ADVICE.sub("", str(error)).split())
    error.args = (text[:LONGEST] or type(error).__name__,)
