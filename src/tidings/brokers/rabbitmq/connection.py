"""One connection to RabbitMQ and its channels, as coroutines; each lives until it ends, and says why it did.

Everything here happens on the loop that opened the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pika
from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

from tidings.brokers.rabbitmq.settings import ANSWER, CONNECT, Settings
from tidings.brokers.rabbitmq.trouble import Ended, Ending, ending_of, trouble_of, unavailable

GOODBYE = 2.0
"""Seconds that the end of a connection or a channel may take when it is wished for."""

_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HxxQ")
_FLAGS = struct.Struct(">H")
_TEXT = struct.Struct(">BI")
_OURS = (
    spec.BasicProperties.FLAG_CONTENT_TYPE
    | spec.BasicProperties.FLAG_HEADERS
    | spec.BasicProperties.FLAG_DELIVERY_MODE
    | spec.BasicProperties.FLAG_MESSAGE_ID
)
"""The properties that messages of ours have, and no others."""
_STRING = ord("S")
_CONTENT_FRAMES = {frame.Header, frame.Body}
_ANSWERS = {spec.Basic.Ack, spec.Basic.Nack}

if (_log := logging.getLogger("pika")).level == logging.NOTSET:
    _log.setLevel(logging.CRITICAL)  # it prints stacks of what we recover from; what matters is said by us


class Channel:
    """One channel.

    Attributes:
        raw: pika's.
        ended: Its result is why it ended.
    """

    def __init__(self, connection: Connection, raw: Any) -> None:
        self.raw = raw
        self.ended: asyncio.Future[Ending] = connection.loop.create_future()
        self._connection = connection
        raw.add_on_close_callback(lambda _, error: settle(self.ended, ending_of(error)))

    async def call(self, method: str, **arguments: Any) -> Any:
        """Call a method that the server answers, and wait for the answer.

        Raises:
            Ended: The server ended the channel instead of answering, or the connection ended.
        """
        answer: asyncio.Future[Any] = self._connection.loop.create_future()
        try:
            getattr(self.raw, method)(**arguments, callback=lambda found: settle(answer, found))
        except exceptions.AMQPError as error:
            raise Ended(self.ended.result() if self.ended.done() else ending_of(error)) from error
        return await self._connection.answer(answer, self.ended, method)

    async def confirm(self, answered: Callable[[Any], object]) -> None:
        """Have the server confirm what is published here. Args: answered: called with each Basic.Ack and Basic.Nack.

        Raises:
            Ended: As `call` does.
        """
        self._connection.raw.confirming[self.raw.channel_number] = answered
        await self.call("confirm_delivery", ack_nack_callback=answered)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Send at once, in one piece, what is published meanwhile."""
        raw = self._connection.raw
        raw.collecting = True
        try:
            yield
        finally:
            raw.collecting = False
            raw.flush()

    async def end(self) -> Ending:
        """Wait until it ends."""
        await asyncio.wait([self.ended])  # to await the future itself would cancel it for others too
        return self.ended.result()

    def close(self) -> None:
        """Close it; what it has not acknowledged comes again elsewhere. Waits for nothing, and may be called twice."""
        with contextlib.suppress(exceptions.AMQPError):
            self.raw.close()


class Connection:
    """One connection, open from the moment it is there.

    Attributes:
        loop: Where it lives.
        ended: Its result is why it ended.
        blocked: Why the server takes no messages at the moment, or None.
        server: "RabbitMQ 3.10.8".
    """

    def __init__(self, raw: Any, ended: asyncio.Future[Ending]) -> None:
        self.loop = asyncio.get_running_loop()
        self.raw = raw
        self.ended = ended
        self.blocked: str | None = None
        properties = raw.server_properties or {}
        self.server = f"{properties.get('product', 'server')} {properties.get('version', '?')}"

    @classmethod
    async def open(cls, settings: Settings, purpose: str) -> Connection:
        """Connect.

        Args:
            settings: Where to.
            purpose: Shown beside the connection at the server.

        Raises:
            BrokerUnavailable: The server cannot be reached, or is not ready.
            BrokerRefused: It does not let us in.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[object] = loop.create_future()
        ended: asyncio.Future[Ending] = loop.create_future()
        raw = _Raw(
            _parameters(settings, purpose),
            on_open_callback=lambda _: settle(opened, None),
            on_open_error_callback=lambda _, error: settle(opened, error),
            on_close_callback=lambda _, error: settle(ended, ending_of(error)),
            custom_ioloop=loop,
        )
        try:
            async with asyncio.timeout(CONNECT + 1.0):  # pika's own limit is CONNECT
                error = await opened
        except BaseException as reason:
            with contextlib.suppress(exceptions.AMQPError):
                raw.close()
            if isinstance(reason, TimeoutError):
                raise unavailable(settings, f"no answer within {CONNECT:.0f} s") from None
            raise
        if isinstance(error, BaseException):
            raise trouble_of(settings, error)
        return cls(raw, ended)

    def on_read(self, read: Callable[[], object]) -> None:
        """Call whenever all that came from the server by now was looked at."""
        self.raw.on_read = read

    def on_blocked(self, changed: Callable[[str | None], object]) -> None:
        """Call with the reason whenever the server stops taking messages, and with None when it takes them again."""

        def note(reason: str | None) -> None:
            self.blocked = reason
            changed(reason)

        self.raw.add_on_connection_blocked_callback(lambda _, found: note(str(found.method.reason)))
        self.raw.add_on_connection_unblocked_callback(lambda *_: note(None))

    async def channel(self) -> Channel:
        """A new channel.

        Raises:
            Ended: The connection ended.
        """
        opened: asyncio.Future[object] = self.loop.create_future()
        try:
            channel = Channel(self, self.raw.channel(on_open_callback=lambda found: settle(opened, found)))
        except exceptions.AMQPError as error:
            raise Ended(self.ended.result() if self.ended.done() else ending_of(error)) from error
        await self.answer(opened, channel.ended, "channel")
        return channel

    async def answer(self, answer: asyncio.Future[Any], ended: asyncio.Future[Ending], what: str) -> Any:
        """The answer of the server, unless the channel ends first; a server that gives none is taken for dead."""
        await asyncio.wait([answer, ended], timeout=ANSWER, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if not ended.done():
            self.abort(f"no answer to {what} within {ANSWER:.0f} s")
        raise Ended(ended.result() if ended.done() else self.ended.result())

    async def end(self) -> Ending:
        """Wait until it ends."""
        await asyncio.wait([self.ended])
        return self.ended.result()

    async def close(self) -> None:
        """Say goodbye: the server then has seen everything that was sent before. Safe to call twice."""
        with contextlib.suppress(exceptions.AMQPError):
            if not (self.raw.is_closing or self.raw.is_closed):
                self.raw.close()
        await asyncio.wait([self.ended], timeout=GOODBYE)
        self.abort("closed")

    def abort(self, why: str) -> None:
        """End it now, without a word."""
        if not self.ended.done():
            settle(self.ended, Ending(0, why))
            self.raw.drop(why)


def settle(future: asyncio.Future[Any], result: object) -> None:
    """Give a future its result, unless it has one."""
    if not future.done():
        future.set_result(result)


def _parameters(settings: Settings, purpose: str) -> Any:
    credentials: Any = pika.credentials.ExternalCredentials()
    if not settings.external:
        credentials = pika.PlainCredentials(settings.user, settings.password)
    return pika.ConnectionParameters(
        host=settings.host,
        port=settings.port,
        virtual_host=settings.vhost,
        credentials=credentials,
        ssl_options=pika.SSLOptions(settings.tls, settings.host) if settings.tls else None,
        heartbeat=settings.heartbeat,
        connection_attempts=1,
        socket_timeout=CONNECT,
        stack_timeout=CONNECT,
        # What was sent and not acknowledged by TCP for so long is lost: no need to wait for two heartbeats then.
        tcp_options={"TCP_USER_TIMEOUT": 1000 * settings.heartbeat},
        client_properties={"connection_name": f"tidings {purpose}"},
    )


class _RawChannel(pika.channel.Channel):  # type: ignore[misc]  # pika has no types
    """pika's channel; it ends at once.

    pika itself would first cancel what consumes. The next worker in line would then begin with what follows, before
    what is not settled here has gone back to its place: out of order.
    """

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
        self._consumers.clear()
        super().close(reply_code, reply_text)


class _Raw(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    """pika's connection, in fewer steps: all frames of a turn of the loop are sent at once, and read where they lie.

    Each system call, and each round of the loop, is a moment in which another thread of the process may take over. So
    what can be sent at once is, without waiting for the loop to say that it can, and confirms go straight to who waits.
    It survives headers that pika cannot read.

    Attributes:
        collecting: True while more frames are to follow before they are sent.
        on_read: Called whenever all that came was looked at.
        confirming: Channel -> who is given each Basic.Ack and Basic.Nack that comes there.
    """

    _frame_buffer: bytes
    on_read: Callable[[], object] | None = None

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._out: list[bytes] = []
        self.collecting = False
        self.confirming: dict[int, Callable[[Any], object]] = {}
        super().__init__(*arguments, **more)

    def drop(self, why: str) -> None:
        """End it without the goodbye that nobody would answer."""
        if not self.is_closed:
            self._terminate_stream(exceptions.StreamLostError(why))

    def _create_channel(self, number: int, opened: Callable[[Any], object] | None) -> Any:
        return _RawChannel(self, number, opened)

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        if not self._out and not self.collecting:
            self._nbio.get_native_ioloop().call_soon(self.flush)
        self._out += marshaled_frames
        self.frames_sent += len(marshaled_frames)

    def flush(self) -> None:
        """Send what there is to send."""
        data = b"".join(self._out)
        self._out.clear()
        self.bytes_sent += len(data)
        if data and self._transport is not None:
            self._adapter_emit_data(data)

    def _adapter_emit_data(self, data: bytes) -> None:
        transport = self._transport
        if type(transport) is _AsyncPlaintextTransport and not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):  # pika's own way will meet it again, and deal with it
                data = data[transport._sock.send(data) :]  # noqa: SLF001 - as much as goes without waiting
        if data:
            transport.write(data)

    def _on_data_available(self, data_in: bytes) -> None:
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        at, end = 0, len(data)
        try:
            while at + _FRAME.size <= end and not self.is_closed:
                _, _, size = _FRAME.unpack_from(data, at)
                begin, following = at, at + _FRAME.size + size + spec.FRAME_END_SIZE
                if following > end or data.startswith(b"AMQP", at):
                    break
                at = following
                self._process_frame(_read_frame(data[begin:following]))
        finally:
            self.bytes_received += at
            self._frame_buffer = data[at:]
        if self.on_read is not None:
            self.on_read()
        if self._frame_buffer.startswith(b"AMQP"):  # the server speaks another version
            super()._on_data_available(b"")

    def _process_frame(self, frame_value: Any) -> None:
        # pika would look whether somebody waits for just this frame
        kind = type(getattr(frame_value, "method", None))
        if type(frame_value) in _CONTENT_FRAMES or kind is spec.Basic.Deliver:
            self.frames_received += 1
            self._deliver_frame_to_channel(frame_value)
        elif kind in _ANSWERS and (answered := self.confirming.get(frame_value.channel_number)) is not None:
            self.frames_received += 1
            answered(frame_value)
        else:
            super()._process_frame(frame_value)


def _read_frame(data: bytes) -> Any:
    if data[0] == spec.FRAME_BODY and data[-1] == spec.FRAME_END:
        return frame.Body(_FRAME.unpack_from(data)[1], data[_FRAME.size : -spec.FRAME_END_SIZE])
    if data[0] != spec.FRAME_HEADER:
        return frame.decode_frame(data)[1]
    if (found := _ours(data)) is None:
        try:
            return frame.decode_frame(data)[1]
        except Exception:  # noqa: BLE001 - whatever a stranger's bytes lead pika to
            return _legible(data)
    return found


def _ours(data: bytes) -> Any:
    """A content header as we send them, in a third of the time that pika takes; None for any other.

    The values of its headers, all of them texts, are left in bytes.
    """
    _, number, _ = _FRAME.unpack_from(data)
    _, body_size = _CONTENT.unpack_from(data, _FRAME.size)
    at = _FRAME.size + _CONTENT.size
    if _FLAGS.unpack_from(data, at)[0] != _OURS:
        return None
    properties = spec.BasicProperties()
    try:
        properties.content_type, at = _short(data, at + _FLAGS.size)
        end = at + 4 + int.from_bytes(data[at : at + 4])
        at += 4
        properties.headers = headers = {}
        while at < end:
            begin, at = at + 1, at + 1 + data[at]
            kind, size = _TEXT.unpack_from(data, at)
            if kind != _STRING:
                return None
            name, begin = data[begin:at].decode(), at + _TEXT.size
            headers[name] = data[begin : (at := begin + size)]
        properties.delivery_mode = data[at]
        properties.message_id, _ = _short(data, at + 1)
    except (UnicodeDecodeError, IndexError, struct.error):
        return None
    return frame.Header(number, body_size, properties)


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def _legible(data: bytes) -> Any:
    """A content header whose table of headers pika cannot read: a stranger's, of which the rest is kept.

    Left to itself pika would end the connection, get the same message again over the next one, and so on for ever.
    """
    _, number, size = _FRAME.unpack_from(data)
    _, body_size = _CONTENT.unpack_from(data, _FRAME.size)
    properties = spec.BasicProperties()
    with contextlib.suppress(Exception):
        properties.decode(data[_FRAME.size + _CONTENT.size : _FRAME.size + size])
    return frame.Header(number, body_size, properties)
