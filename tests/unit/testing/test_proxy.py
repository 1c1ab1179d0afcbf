"""The proxy breaks what it is told to break, and nothing else."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tidings.testing.proxy import BLACK_HOLE, LOST_REPLIES, LOST_REQUESTS, PASS, REFUSE, STALL, Fault, Proxy

SILENCE = 0.15
"""Seconds in which an answer that comes at all would have come."""


class Echo:
    """A server that sends back what it gets, and keeps it."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.heard = bytearray()
        self.chunks = []
        self.connections = []
        self.resets = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        try:
            while data := connection.recv(1 << 16):
                self.heard += data
                self.chunks.append(data)
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except ConnectionResetError:
            self.resets += 1
        except OSError:  # closed by the fixture
            return

    def stop(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def close(self):
        if self.listening.fileno() >= 0:
            self.stop()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo):
    with Proxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy):
    made = []

    def connect():
        made.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def asked(client, words=b"hello"):
    client.sendall(words)
    answer = b""
    while len(answer) < len(words):
        more = client.recv(1 << 16)
        assert more, "the connection has ended"
        answer += more
    return answer


def silent(client):
    return not select.select([client], [], [], SILENCE)[0]


def eventually(true):
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def test_a_good_network_carries_everything_both_ways(proxy, connect):
    client = connect()
    big = os.urandom(1_000_000)
    sender = threading.Thread(target=client.sendall, args=(big,))
    sender.start()
    answer = b""
    while len(answer) < len(big):
        answer += client.recv(1 << 16)
    sender.join()
    assert answer == big
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""  # the end travels too
    assert eventually(lambda: proxy.traffic().open == 0)
    traffic = proxy.traffic()
    assert (traffic.accepted, traffic.cut, traffic.requests, traffic.replies) == (1, 0, len(big), len(big))


def test_refused_connections_do_not_touch_open_ones(proxy, connect):
    client = connect()
    assert asked(client) == b"hello"
    proxy.suffer(REFUSE)
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert asked(client) == b"hello"
    proxy.heal()
    assert asked(connect()) == b"hello"


def test_a_cut_resets_both_sides_and_spares_who_comes_later(proxy, connect, echo):
    client = connect()
    asked(client)
    assert proxy.cut().cut == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert eventually(lambda: echo.resets == 1)
    assert asked(connect()) == b"hello"


def test_a_black_hole_accepts_and_swallows(proxy, connect, echo):
    proxy.suffer(BLACK_HOLE)
    client = connect()
    client.sendall(b"hello")
    assert eventually(lambda: proxy.traffic().lost == 5)
    assert silent(client)
    assert echo.heard == b""


def test_a_lost_reply_is_to_a_request_that_was_heard(proxy, connect, echo):
    client = connect()
    proxy.suffer(LOST_REPLIES)
    client.sendall(b"hello")
    assert eventually(lambda: echo.heard == b"hello")
    assert silent(client)


def test_a_lost_request_is_not_heard(proxy, connect, echo):
    client = connect()
    proxy.suffer(LOST_REQUESTS)
    client.sendall(b"hello")
    assert silent(client)
    assert echo.heard == b""
    echo.connections[0].sendall(b"by the way")
    assert client.recv(100) == b"by the way"


@pytest.mark.parametrize("fault", [BLACK_HOLE, LOST_REPLIES, LOST_REQUESTS])
def test_a_connection_that_has_lost_bytes_is_reset_when_the_network_heals(proxy, connect, fault):
    quiet, client = connect(), connect()
    proxy.suffer(fault)
    client.sendall(b"hello")
    assert eventually(lambda: proxy.traffic().lost == 5)
    assert silent(client)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert asked(quiet) == b"hello"


def test_the_end_of_a_client_in_a_black_hole_is_news_only_when_the_network_heals(proxy, connect, echo):
    client = connect()
    asked(client)
    proxy.suffer(BLACK_HOLE)
    client.close()
    assert silent(echo.connections[0])
    proxy.heal()
    assert eventually(lambda: proxy.traffic().open == 0)
    assert select.select([echo.connections[0]], [], [], 5)[0]


def test_what_was_held_arrives_late_and_whole(proxy, connect, echo):
    client = connect()
    proxy.suffer(STALL)
    client.sendall(b"hello")
    assert silent(client)
    assert echo.heard == b""
    proxy.heal()
    assert client.recv(100) == b"hello"


def test_a_delay_holds_back_each_way(proxy, connect):
    client = connect()
    asked(client)
    proxy.suffer(Fault(delay=0.1))
    begin = time.monotonic()
    assert asked(client) == b"hello"
    assert 0.2 <= time.monotonic() - begin < 5


def test_slices_arrive_one_by_one_and_whole_together(proxy, connect, echo):
    client = connect()
    proxy.suffer(Fault(slice=3))
    words = os.urandom(900)
    assert asked(client, words) == words
    assert len(echo.chunks) > 1  # a busy machine puts some of them together again, and never all


@pytest.mark.parametrize(("fault", "heard"), [(Fault(requests="cut"), b""), (Fault(replies="cut"), b"COMMIT")])
def test_a_reset_comes_in_the_place_of_a_request_or_of_its_answer(proxy, connect, echo, fault, heard):
    client = connect()
    proxy.suffer(fault)
    client.sendall(b"COMMIT")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.heard == heard


def test_a_fault_can_wait_for_the_request_that_it_is_for(proxy, connect, echo):
    client = connect()
    proxy.suffer_at(b"COMMIT", LOST_REPLIES)
    assert asked(client, b"BEGIN") == b"BEGIN"
    client.sendall(b"COMMIT")
    assert eventually(lambda: echo.heard == b"BEGINCOMMIT")
    assert silent(client)
    proxy.heal()
    assert asked(connect(), b"COMMIT") == b"COMMIT"  # it comes once


def test_a_server_that_is_down_looks_down(proxy, connect, echo):
    client = connect()
    asked(client)
    echo.stop()
    with pytest.raises(ConnectionResetError):
        asked(connect())
    assert asked(client) == b"hello"


def test_urls_lead_through_the_proxy(proxy):
    url = proxy.url("postgresql://ada:se%40cret@localhost:5432/shop?connect_timeout=3")
    assert url == f"postgresql://ada:se%40cret@127.0.0.1:{proxy.port}/shop?connect_timeout=3"
    assert proxy.url("kafka://localhost") == f"kafka://127.0.0.1:{proxy.port}"


def test_a_proxy_does_not_outlive_whoever_started_it():
    script = "from tidings.testing.proxy import Proxy; import time; print(Proxy(1).port, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as test:
        port = int(test.stdout.readline())
        socket.create_connection(("127.0.0.1", port)).close()
        test.send_signal(signal.SIGKILL)

    def refused():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    assert eventually(refused)


def test_a_proxy_that_was_ended_says_so(proxy):
    proxy.close()
    proxy.close()
    with pytest.raises((RuntimeError, ValueError)):
        proxy.suffer(PASS)
