"""Object stores on loopback, and what lies in them as plain HTTP says: nothing here goes through the package."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import ClassVar

SECRET = "ThisSecretIsInNoFile"  # which no output, log or message may show
S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAOFNOBODY",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_SIGNED = "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_HEADERS = {"Authorization": _SIGNED, "Content-Type": "application/octet-stream"}


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server that asks nobody who he is."""

    endpoint: str
    name: str
    endpoint_variable: ClassVar[str] = "AWS_ENDPOINT_URL"

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def _ask(self, method: str, key: str = "", query: str = "", content: bytes = b"") -> bytes:
        place = f"{self.endpoint}/{self.name}/{urllib.parse.quote(key)}{query}"
        request = urllib.request.Request(place, content, _HEADERS, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def make(self) -> "Bucket":
        self._ask("PUT")
        return self

    def put(self, key: str, content: bytes) -> None:
        self._ask("PUT", key, content=content)

    def get(self, key: str) -> bytes:
        return self._ask("GET", key)

    def keys(self, prefix: str = "") -> list[str]:
        """Every object whose name begins so, but the marks of folders."""
        found: list[str] = []
        while True:
            after = f"&start-after={urllib.parse.quote(found[-1])}" if found else ""
            listing = self._ask("GET", query=f"?list-type=2&prefix={urllib.parse.quote(prefix)}{after}").decode()
            more = re.findall("<Key>(.*?)</Key>", listing)
            found += more
            if not more or "<IsTruncated>true" not in listing:
                return [key for key in found if not key.endswith("/")]

    def upload(self, folder: pathlib.Path | str, prefix: str) -> str:
        """Every file of a folder, or one file; returns the address."""
        folder = pathlib.Path(folder)
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if path.is_file():
                self.put("/".join([prefix, *path.relative_to(folder).parts]), path.read_bytes())
        return f"{self.address}/{prefix}"

    def download(self, prefix: str, folder: pathlib.Path) -> pathlib.Path:
        for key in self.keys(f"{prefix}/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))
        return folder


class GoogleBucket(Bucket):
    """The same of an emulator of Google's."""

    endpoint_variable: ClassVar[str] = "STORAGE_EMULATOR_HOST"

    @property
    def address(self) -> str:
        return f"gs://{self.name}"

    def _call(self, method: str, path: str, content: bytes | None = None, kind: str = "octet-stream") -> bytes:
        headers = {"Content-Type": f"application/{kind}"}
        request = urllib.request.Request(f"{self.endpoint}{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def make(self) -> "GoogleBucket":
        self._call("POST", "/storage/v1/b?project=tests", json.dumps({"name": self.name}).encode(), "json")
        return self

    def put(self, key: str, content: bytes) -> None:
        name = urllib.parse.quote(key, safe="")
        self._call("POST", f"/upload/storage/v1/b/{self.name}/o?uploadType=media&name={name}", content)

    def get(self, key: str) -> bytes:
        return self._call("GET", f"/download/storage/v1/b/{self.name}/o/{urllib.parse.quote(key, safe='')}?alt=media")

    def keys(self, prefix: str = "") -> list[str]:
        listed = json.loads(self._call("GET", f"/storage/v1/b/{self.name}/o?prefix={urllib.parse.quote(prefix)}"))
        return sorted(item["name"] for item in listed.get("items", []) if not item["name"].endswith("/"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def serving(*arguments: str, port: int) -> Iterator[str]:
    """A server, which Python runs in a process of its own until the block ends; its endpoint."""
    line = [sys.executable, *arguments]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, f"{arguments} ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    port = free_port()
    with serving("-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), port=port) as endpoint:
        yield endpoint


_EMULATOR = """
import http.server, sys
http.server.HTTPServer = http.server.ThreadingHTTPServer  # else a reader that waits holds up all others
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).run()
"""


@contextlib.contextmanager
def google_server() -> Iterator[str]:
    port = free_port()
    with serving("-c", _EMULATOR, str(port), port=port) as endpoint:
        yield endpoint
