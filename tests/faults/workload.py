"""What the fault tests run: publishers and workers of a small shop, written as a user would, that leave traces.

Every message carries who published it, its number for that key, and the tag of its transaction. Handlers leave their
effects in a table without any unique constraint (with `tx`) or in a ledger outside the store (without), so that doubles
and losses are seen. What a message asks for in `wish` is how a handler fails.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tidings import App, Decider, Envelope, Key, Projection, Retry, Transaction, command, event
from tidings.core.codec import Codec
from tidings.core.message import message_type
from tidings.core.ports import Store
from tidings.errors import OutcomeUnknown, TidingsError
from tidings.testing.checker import check
from tidings.testing.evidence import Effect, Final, Group, ReadModel, read_out
from tidings.testing.history import Record, digest, read_history
from tidings.testing.verdict import Report

KEYS = 12
"""Keys in use at a time; others take their place now and then, as dead letters park theirs."""
ATTEMPTS = 3
QUICK = Retry(attempts=ATTEMPTS, initial=0.001, maximum=0.01)


@event(topic="orders")
class Placed:
    key: Key[str]
    producer: str
    pseq: int
    txn: str | None = None
    wish: str = ""
    padding: str = ""


@event(topic="orders")
class Shipped:
    key: Key[str]
    order: str


@event(topic="orders")
class Noticed:
    """Handled without `tx`."""

    key: Key[str]
    producer: str
    pseq: int
    wish: str = ""


@event
class Added:
    key: Key[str]
    amount: int
    txn: str


@command
class Add:
    key: Key[str]
    amount: int
    txn: str


@dataclass(frozen=True)
class Account:
    total: int = 0


def decide(account: Account, order: Add) -> Iterator[Added]:
    yield Added(order.key, order.amount, order.txn)


def evolve(account: Account, added: Added) -> Account:
    return Account(account.total + added.amount)


Note = Callable[..., None]
Ledger = Callable[[Effect], None]
Pause = Callable[[str], Awaitable[None]]


class Wished(Exception):
    """A handler failed because the message asked it to."""


@dataclass
class Shop:
    """One process's share of the shop: the app, and where it leaves traces.

    Args:
        url: The store, or its URL.
        note: Writes a record of the history.
        ledger: Takes effects outside the store.
        member: Who this worker is.
        pause: Awaited by handlers before they do anything, with their group; lets a test hold them.
        options: For the App.
        chance: Decides when "sometimes" is.
    """

    url: str | Store
    note: Note
    ledger: Ledger
    member: int
    pause: Pause | None = None
    options: dict[str, object] = field(default_factory=dict)
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        accounts = Decider("account", initial=Account(), decide=decide, evolve=evolve)
        totals = Projection("totals", schema="CREATE TABLE total (key TEXT PRIMARY KEY, n INTEGER, amount INTEGER)")

        @totals.on(Placed | Added)
        async def count(message: Placed | Added, tx: Transaction) -> None:
            amount = message.amount if isinstance(message, Added) else 0
            sql = (
                "INSERT INTO total VALUES (?, 1, ?) "
                "ON CONFLICT (key) DO UPDATE SET n = total.n + 1, amount = total.amount + excluded.amount"
            )
            await tx.execute(sql, message.key, amount)

        self.accounts = accounts
        self.app = App(self.url, accounts, totals, name="shop", **self.options)

        @self.app.on(Placed, retry=QUICK)
        async def ship(order: Placed, tx: Transaction, envelope: Envelope) -> Shipped:
            await self._called("shop.ship", envelope)
            await self._effect("shop.ship", envelope, tx)
            self._fail("shop.ship", order.wish, envelope)
            return Shipped(order.key, envelope.id)

        @self.app.on(Noticed, retry=QUICK)
        async def mail(notice: Noticed, envelope: Envelope) -> None:
            await self._called("shop.mail", envelope)
            self._fail("shop.mail", notice.wish, envelope)
            self.ledger(Effect("shop.mail", envelope.id, digest_of(envelope), self.member))

        @self.app.on(Shipped, on_dead="skip")
        async def bill(shipped: Shipped, tx: Transaction, envelope: Envelope) -> None:
            await self._effect("shop.bill", envelope, tx)

    async def _called(self, group: str, envelope: Envelope) -> None:
        self.note("deliver", "invoke", group=group, id=envelope.id, key=envelope.key, member=self.member)
        if self.pause is not None:
            try:
                await self.pause(group)
            except asyncio.CancelledError:
                self.note("deliver", "unknown", group=group, id=envelope.id, member=self.member)
                raise

    async def _effect(self, group: str, envelope: Envelope, tx: Transaction) -> None:
        asked = await tx.execute("SELECT owner FROM tidings_slot WHERE name = ? AND slot = ?", group, envelope.slot)
        owned = asked.fetchone()[0] in {worker.member for worker in self.app._workers}
        sql = "INSERT INTO effect (grp, id, digest, member, owned) VALUES (?, ?, ?, ?, ?)"
        await tx.execute(sql, group, envelope.id, digest_of(envelope), self.member, int(owned))

    def _fail(self, group: str, wish: str, envelope: Envelope) -> None:
        """Fail as the message wishes: "dead" always, "sometimes" now and then, "exit" and "crash" with the process."""
        if wish == "exit":
            os._exit(9)
        if wish == "crash":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        if wish == "dead" or (wish == "sometimes" and self.chance() < 0.4):
            self.note("deliver", "fail", group=group, id=envelope.id, member=self.member, reason="Wished")
            raise Wished(wish)


GROUPS = [
    Group("shop.ship", frozenset({"Placed"}), attempts=ATTEMPTS, in_flight=1024, returns="Shipped"),
    Group("shop.mail", frozenset({"Noticed"}), exactly_once=False, attempts=ATTEMPTS, in_flight=1024),
    Group("shop.bill", frozenset({"Shipped"}), on_dead="skip"),
]


async def prepare(shop: Shop) -> None:
    """Make the tables that the shop's own code writes to, and its groups."""
    async with shop.app as app:
        async with app.transaction() as tx:
            counted = "INTEGER" if app.url.startswith("sqlite") else "BIGINT GENERATED ALWAYS AS IDENTITY"
            columns = f"n {counted} PRIMARY KEY, grp TEXT, id TEXT, digest TEXT, member INTEGER, owned INTEGER"
            await tx.execute(f"CREATE TABLE IF NOT EXISTS effect ({columns})")
            await tx.execute("CREATE TABLE IF NOT EXISTS business (tag TEXT)")
        await app.run(until_idle=True)


def give_up(tag: str) -> None:
    raise Wished(tag)


class Publisher:
    """Publishes in every way there is, and records what it was told.

    Args:
        shop: Its app is open.
        producer: Unique name.
        random_: Decides what comes next.
    """

    def __init__(self, shop: Shop, producer: str, random_: random.Random) -> None:
        self.shop = shop
        self.producer = producer
        self.random = random_
        self.pseq: dict[str, int] = {}
        self.serial = 0
        self.wishes = ["", *[""] * 30, "sometimes", "dead"]
        self.ways = ["publish", "publish", "notice", "transact", "execute"]
        self.patient = False
        self.keys = KEYS
        self.padding = ""
        self.season: Callable[[], float] = time.monotonic

    async def run(self, rounds: int | None = None) -> None:
        """Publish for ever, or for some rounds."""
        while rounds is None or rounds > 0:
            try:
                await self.one()
            except TidingsError as error:
                if not (self.patient and error.transient):
                    raise
                await asyncio.sleep(0.01)
            rounds = None if rounds is None else rounds - 1

    async def one(self) -> None:
        """Publish something."""
        await getattr(self, self.random.choice(self.ways))()

    def placed(self, txn: str | None = None) -> Placed:
        key = self.key()
        return Placed(key, self.producer, self._next(key), txn, self.random.choice(self.wishes), self.padding)

    def key(self, of: int | None = None) -> str:
        """One of the keys that all publishers use this second."""
        return f"k{self.random.randrange(of or self.keys)}-{int(self.season())}"

    def _next(self, key: str) -> int:
        self.pseq[key] = self.pseq.get(key, 0) + 1
        return self.pseq[key]

    def tag(self) -> str:
        self.serial += 1
        return f"{self.producer}-{self.serial}"

    async def publish(self) -> None:
        await self.send(self.placed())

    async def notice(self) -> None:
        key = self.key()
        await self.send(Noticed(key, self.producer, self._next(key), self.random.choice(self.wishes)))

    async def send(self, message: object) -> None:
        """Publish one message under an id of our own; again while nobody knows whether it is published."""
        id_ = self.tag()
        facts = {"id": id_, "key": message.key, "digest": body_digest(message)}
        self.shop.note("publish", "invoke", **facts)
        for _ in range(10):
            try:
                position = await self.shop.app.publish(message, id=id_)
            except OutcomeUnknown:
                self.shop.note("publish", "unknown", id=id_)
            except TidingsError as error:
                self.shop.note("publish", "fail", id=id_, reason=type(error).__name__)
                raise
            else:
                self.shop.note("publish", "ok", id=id_, pos=position)
                return

    async def transact(self) -> None:
        """A row of one's own and two messages, together or not at all."""
        tag = self.tag()
        orders = [self.placed(tag), self.placed(tag)]
        gives_up = self.random.random() < 0.2
        self.shop.note("commit", "invoke", txn=tag)
        try:
            async with self.shop.app.transaction() as tx:
                await tx.execute("INSERT INTO business (tag) VALUES (?)", tag)
                await tx.publish(*orders)
                if gives_up:
                    give_up(tag)
        except Wished:
            self.shop.note("commit", "fail", txn=tag, reason="Wished")
        except OutcomeUnknown:
            self.shop.note("commit", "unknown", txn=tag)
        except TidingsError as error:
            self.shop.note("commit", "fail", txn=tag, reason=type(error).__name__)
            raise
        else:
            self.shop.note("commit", "ok", txn=tag)

    async def execute(self) -> None:
        """A command to a decider, under contention."""
        key, tag = self.key(3), self.tag()
        facts = {"txn": tag, "stream": self.shop.accounts.stream(key)}
        self.shop.note("append", "invoke", **facts)
        try:
            position = await self.shop.app.execute(self.shop.accounts, Add(key, self.random.randint(1, 9), tag))
        except OutcomeUnknown:
            self.shop.note("append", "unknown", **facts)
        except TidingsError as error:
            self.shop.note("append", "fail", reason=type(error).__name__, **facts)
            raise
        else:
            self.shop.note("append", "ok", pos=position, **facts)


_codecs = {cls: Codec(message_type(cls)) for cls in (Placed, Noticed, Shipped)}


def digest_of(envelope: Envelope) -> str:
    """The digest of a message as it did arrive."""
    return digest(envelope.type, envelope.key, envelope.data)


def body_digest(message: object) -> str:
    """The digest of a message as it must arrive."""
    return digest(type(message).__name__, message.key, _codecs[type(message)].encode(message))


class FileLedger:
    """Effects outside the store, one line each, as a mail server's log would show them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, effect: Effect) -> None:
        os.write(self._file, b"\n" + msgspec.json.encode(effect) + b"\n")


def read_ledger(path: Path) -> list[Effect]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Effect) for line in lines if line.endswith(b"}")]


async def final(shop: Shop, ledger: list[Effect], **more: object) -> Final:
    """Read everything out of a quiet shop; its app is open."""
    store = shop.app.store
    log, held, checkpoints = await read_out(store, [*GROUPS, Group("shop.totals", frozenset())], "shop")
    rows = await store.query("SELECT grp, id, digest, member, owned FROM effect ORDER BY n")
    effects = [Effect(*row) for row in rows] + ledger
    tags = frozenset(tag for (tag,) in await store.query("SELECT tag FROM business"))
    live = {key: (n, amount) for key, n, amount in await store.query("SELECT key, n, amount FROM total")}
    model = ReadModel("totals", live, fold(log))
    return Final(log, effects, held, checkpoints, GROUPS, [model], tags, **more)


def fold(log: list[Envelope]) -> dict[str, tuple[int, int]]:
    """What the projection must hold after these events."""
    totals: dict[str, tuple[int, int]] = {}
    for envelope in log:
        if envelope.type in {"Placed", "Added"}:
            n, amount = totals.get(envelope.key, (0, 0))
            try:
                added = msgspec.json.decode(envelope.data).get("amount", 0)
            except msgspec.DecodeError:  # a dead letter
                continue
            totals[envelope.key] = (n + 1, amount + added)
    return totals


def judge(history: Path | list[Record], found: Final) -> Report:
    return check(read_history(history) if isinstance(history, Path) else history, found)
