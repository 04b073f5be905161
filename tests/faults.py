"""A proxy before a store that does to some requests what networks and stores do; in a process of its own.

    python tests/faults.py ENDPOINT PORT CHOICE

A client may hold Python's lock while it waits for an answer, as PyArrow's for ``gs://`` does: a proxy in its process
could not give one. ``CHOICE`` is a Python expression of ``n``, the number of the request from 1 on, that gives

    "well"        all as asked
    "unheard"     the connection is dropped before the server hears of it
    "unanswered"  the server does it, and the connection is dropped instead of the answer
    "cut"         half of the answer
    "slow"        a second later

or the name of a refusal.
"""

import contextlib
import dataclasses
import http.client
import http.server
import itertools
import json
import socket
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

REFUSALS = {
    "throttled": (503, "SlowDown"),
    "limited": (429, "rateLimitExceeded"),
    "expired": (403, "ExpiredToken"),
    "unauthorized": (401, "authError"),
}
_OF_A_CONNECTION = {"content-length", "connection", "transfer-encoding", "keep-alive", "server", "date"}
_COUNT = "/requests-so-far"


@dataclasses.dataclass(frozen=True)
class Proxy:
    """One that runs, at its endpoint."""

    endpoint: str

    def asked(self) -> int:
        """How many requests came so far."""
        with urllib.request.urlopen(self.endpoint + _COUNT, timeout=60) as answer:
            return int(answer.read())


@contextlib.contextmanager
def unreliable(endpoint: str, choice: str) -> Iterator[Proxy]:
    """The proxy of an endpoint until the block ends; see the module for ``choice``."""
    from tests.stores import free_port, serving

    port = free_port()
    with serving(__file__, endpoint, str(port), choice, port=port) as place:
        yield Proxy(place)


def main(endpoint: str, port: str, choice: str) -> None:
    place, numbers, rule = urllib.parse.urlsplit(endpoint).netloc, itertools.count(1), compile(choice, "CHOICE", "eval")
    last = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = self.heard()
            if self.path == _COUNT:
                return self.say(200, [], str(last[0]).encode())
            last[0] = next(numbers)
            how = eval(rule, {"n": last[0]})
            if how == "unheard":
                return self.drop()
            if how in REFUSALS:
                return self.refuse(*REFUSALS[how])
            if how == "slow":
                time.sleep(1)
            server = http.client.HTTPConnection(place, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
            server.request(self.command, self.path, content, headers | {"Content-Length": str(len(content))})
            came = server.getresponse()
            body = came.read()
            if how == "unanswered":
                return self.drop()
            kept = [(name, value) for name, value in came.getheaders() if name.lower() not in _OF_A_CONNECTION]
            return self.say(came.status, kept, body, came.getheader("Content-Length"), half=how == "cut")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = answer

        def heard(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def refuse(self, status: int, code: str) -> None:
            """In the words of S3, or in those of Google."""
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
            if "/v1/b/" in self.path:
                body = json.dumps({"error": {"code": status, "message": "no", "errors": [{"reason": code}]}})
            self.say(status, [], body.encode())

        def say(self, status, headers, body, length=None, half=False) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if half else body)
            if half:
                self.drop()

        def drop(self) -> None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def log_message(self, *_) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
