"""A server's answers, changed on their way: for what no emulator does by itself and AWS does at times."""

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

Answer = tuple[int, bytes]
Change = Callable[[str, bytes, Answer], Answer]
"""(action, request, answer) -> answer."""


class Meddler:
    """Stands before an AWS endpoint; a context manager.

    Args:
        endpoint: Of the server.
    """

    def __init__(self, endpoint: str) -> None:
        self.change: Change | None = None
        self.seen: list[str] = []
        """Actions, in the order in which they were asked for."""
        meddler, target = self, urlsplit(endpoint).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server = http.client.HTTPConnection(target)
                server.request("POST", self.path, body, dict(self.headers.items()))
                answered = server.getresponse()
                headers, answer = answered.headers, (answered.status, answered.read())
                server.close()
                action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                action = action or body.partition(b"Action=")[2].partition(b"&")[0].decode()
                meddler.seen.append(action)
                if meddler.change is not None:
                    answer = meddler.change(action, body, answer)
                self.send_response(answer[0])
                self.send_header("Content-Type", headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
