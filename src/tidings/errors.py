"""The whole error tree. Every error says what happened, which thing it happened to, and the cure.

```
TidingsError
├── UsageError                 TID-100  the program is wrong; fix the code
│   ├── NotAMessage            TID-101  (TypeError)  published something that is no message
│   ├── BadDeclaration         TID-102  (TypeError)  a message, part or policy is declared wrongly
│   ├── BadHandler             TID-103  (TypeError)  a handler cannot be called as declared
│   ├── BadUrl                 TID-104  (ValueError) a store or broker URL cannot be read
│   ├── NeedsNotMet            TID-105  a handler needs what the broker cannot give
│   ├── NotOpen                TID-106  the app is not open here (before open, after close, other loop, fork)
│   └── BadArgument            TID-107  (ValueError) an argument is out of its range
├── BadPayload                 TID-201  (ValueError) a message cannot be written as JSON; names the field path
│   ├── PayloadTooLarge        TID-202  larger than the store or broker takes
│   └── Unreadable             TID-203  stored or received bytes cannot be read as the declared type
├── Conflict                   somebody else was first
│   ├── WrongVersion           TID-301  the stream is not at the expected version (transient: load again)
│   ├── IdConflict             TID-302  the same id was published before with another body
│   ├── Fenced                 TID-303  this worker lost its lease; its result was refused
│   └── GroupConflict          TID-304  two different handlers claim one group or command, or a command is another app's
├── OutcomeUnknown             TID-401  it may or may not have happened; the same id may be sent again
├── NotCaughtUp                TID-402  the write is done, the read model is late (transient)
├── Overloaded                 TID-403  too much is waiting to be written (transient)
├── NotFound                   TID-404  no such event, dead letter or store; or a part that has not run yet
├── NoAnswer                   TID-405  a request was not answered in time; whether it was done is not known (transient)
├── Refused                    TID-406  a request was refused: its handler gave it up; says why
├── StoreError                 TID-500  the store itself
│   ├── StoreUnavailable       TID-501  cannot be opened or reached (transient)
│   ├── StoreFull              TID-502  no space left; nothing was acknowledged (transient)
│   ├── WrongStore             TID-503  not a tidings store, or one of another version
│   ├── StoreGone              TID-504  the file was removed or replaced under a running process
│   └── ProjectionChanged      TID-505  the code of a projection changed without a rebuild
└── BrokerError                TID-700  the broker itself
    ├── BrokerUnavailable      TID-701  cannot be reached (transient)
    └── BrokerRefused          TID-702  it will not do what is asked until somebody mends something; names it
```
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BadArgument",
    "BadDeclaration",
    "BadHandler",
    "BadPayload",
    "BadUrl",
    "BrokerError",
    "BrokerRefused",
    "BrokerUnavailable",
    "Conflict",
    "Fenced",
    "GroupConflict",
    "IdConflict",
    "NeedsNotMet",
    "NoAnswer",
    "NotAMessage",
    "NotCaughtUp",
    "NotFound",
    "NotOpen",
    "OutcomeUnknown",
    "Overloaded",
    "PayloadTooLarge",
    "ProjectionChanged",
    "Refused",
    "StoreError",
    "StoreFull",
    "StoreGone",
    "StoreUnavailable",
    "TidingsError",
    "Unreadable",
    "UsageError",
    "WrongStore",
    "WrongVersion",
]


class TidingsError(Exception):
    """The root of every error this library raises.

    Attributes:
        code: A stable identifier, `TID-nnn`, the same in exceptions, logs and on the command line.
        transient: True where doing the same again later may succeed.
        what: One line: what happened, to which thing.
        cure: One line: what to do about it. May be empty.
        data: The facts as values (sizes, names, versions), for programs.
    """

    code: ClassVar[str] = "TID-000"
    transient: ClassVar[bool] = False

    def __init__(self, what: str, cure: str = "", **data: object) -> None:
        """Keep the two lines apart, so that a terminal and a log can each lay them out."""
        super().__init__(f"{what}. {cure}" if cure else what)
        self.what = what
        self.cure = cure
        self.data = data


class UsageError(TidingsError):
    """The program asks for something that cannot be; no retry will help."""

    code = "TID-100"


class NotAMessage(UsageError, TypeError):
    """An object was published whose class carries no `@event`, `@state` or `@command`."""

    code = "TID-101"


class BadDeclaration(UsageError, TypeError):
    """A message type, part or policy is declared in a way that cannot work."""

    code = "TID-102"


class BadHandler(UsageError, TypeError):
    """A handler's signature or name does not fit; the message names where it is defined."""

    code = "TID-103"


class BadUrl(UsageError, ValueError):
    """A URL cannot be read. Its password is never part of the message."""

    code = "TID-104"


class NeedsNotMet(UsageError):
    """A handler needs a guarantee that this store or broker does not give."""

    code = "TID-105"


class NotOpen(UsageError):
    """The app is used where it is not open: before opening, after closing, in another loop, in a forked child."""

    code = "TID-106"


class BadArgument(UsageError, ValueError):
    """An argument lies outside the accepted range, which the message states."""

    code = "TID-107"


class BadPayload(TidingsError, ValueError):
    """A message holds a value that cannot be written faithfully; `data["path"]` is the field path."""

    code = "TID-201"


class PayloadTooLarge(BadPayload):
    """The encoded message is larger than the limit; `data` has `size` and `limit` in bytes."""

    code = "TID-202"


class Unreadable(BadPayload):
    """Stored or received bytes cannot be read as what they claim to be. They are kept, never dropped."""

    code = "TID-203"


class Conflict(TidingsError):
    """Somebody else was first."""


class WrongVersion(Conflict):
    """The stream is not at the expected version; `data` has `stream`, `expected` and `actual`."""

    code = "TID-301"
    transient = True


class IdConflict(Conflict):
    """An id that was published before came again with another body."""

    code = "TID-302"


class Fenced(Conflict):
    """This worker's lease moved to another one; nothing of the refused transaction remains."""

    code = "TID-303"


class GroupConflict(Conflict, UsageError):
    """Two different handlers claim the same group, or two groups or apps the same command."""

    code = "TID-304"


class OutcomeUnknown(TidingsError):
    """The operation may or may not have happened. Sending it again with the same id is safe."""

    code = "TID-401"
    transient = True


class NotCaughtUp(TidingsError):
    """The write is done; the read model did not reach its position in time."""

    code = "TID-402"
    transient = True


class Overloaded(TidingsError):
    """More writes are waiting than the limit; nothing of this one was kept."""

    code = "TID-403"
    transient = True


class NotFound(TidingsError):
    """What was asked for is not in the store."""

    code = "TID-404"


class NoAnswer(TidingsError):
    """A request was not answered before its deadline; `data["id"]` is its id. It may have been done all the same."""

    code = "TID-405"
    transient = True


class Refused(TidingsError):
    """The handler of a request gave it up: it is a dead letter there. `data` has `id`, `app` and `reason`."""

    code = "TID-406"


class StoreError(TidingsError):
    """The store itself has a problem."""

    code = "TID-500"


class StoreUnavailable(StoreError):
    """The store cannot be opened or reached."""

    code = "TID-501"
    transient = True


class StoreFull(StoreError):
    """No space is left. Nothing was acknowledged; writing works again once space is free."""

    code = "TID-502"
    transient = True


class WrongStore(StoreError):
    """The file is not a tidings store, or was written by a newer version."""

    code = "TID-503"


class StoreGone(StoreError):
    """The store's file was deleted, renamed or replaced while it was open."""

    code = "TID-504"


class ProjectionChanged(StoreError):
    """A projection's code differs from the code that built its table."""

    code = "TID-505"


class BrokerError(TidingsError):
    """The broker itself has a problem."""

    code = "TID-700"


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached. What is published waits in the log, and is sent once it can be."""

    code = "TID-701"
    transient = True


class BrokerRefused(BrokerError):
    """The broker will not do what is asked: permissions, a queue with other arguments, an offset that is gone."""

    code = "TID-702"
