"""Waiting as the server asks, and JSON that is as good with orjson as without."""

import email.utils
import http.server
import json
import time

import numpy as np
import pytest

from tests.serving.fronts import serve_http
from tfvae.serving import Client, ServingError, rest


class Busy(http.server.BaseHTTPRequestHandler):
    """Turns away with each of ``asks`` as Retry-After, and then tells the model's state."""

    asks: list[str]
    code = 429

    def do_GET(self) -> None:
        contents = json.dumps({"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}).encode()
        self.send_response(self.code if self.asks else 200)
        if self.asks:
            self.send_header("Retry-After", self.asks.pop(0))
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    seen: list[float] = []
    monkeypatch.setattr("tfvae.serving.retries.time.sleep", seen.append)
    return seen


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_is_given_the_time_that_it_asks_for(pauses, code):
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    with serve_http(Busy, asks=["7", date, "soon"], code=code) as port:
        assert Client(f"http://127.0.0.1:{port}", "m").status() == {1: "AVAILABLE"}
    assert 7 <= pauses[0] < 7.2 and 15 < pauses[1] < 20.3 and pauses[2] < 0.5


def test_a_server_that_asks_for_an_hour_is_not_waited_for(pauses):
    with serve_http(Busy, asks=["3600"]) as port, pytest.raises(ServingError, match="HTTP 429"):
        Client(f"http://127.0.0.1:{port}", "m").status()
    assert pauses == []


@pytest.mark.parametrize("fast", [True, False])
def test_what_is_sent_reads_as_the_same_floats(monkeypatch, fast):
    if fast:
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(rest, "orjson", None)
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = np.array([*bits[np.isfinite(bits)], 1e-45, 3.4028235e38, -0.0], np.float32)[:, None]
    text = rest._text({"inputs": {"x": rest._column(values[::-1]), "files": rest._column([b"\x00\xff"])}})
    read = json.loads(text)["inputs"]
    back = np.array(read["x"], np.float64).astype(np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), values[::-1].view(np.uint32))
    assert read["files"] == [{"b64": "AP8="}]
    assert np.isnan(rest._document(b'{"outputs": [NaN, 1.5]}')["outputs"][0])
