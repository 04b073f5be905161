"""The client against the server's rules and the C++ session: the same rows whichever way they went."""

import contextlib
import json
import pathlib
import socket
import socketserver
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from pipelines import embed
from tests.serving.conftest import LATENT, SHAPE, VERSION
from tests.serving.fronts import SLOW, Broken, serve_grpc, serve_http
from tests.serving.rules import Faults
from tfvae.checks.process import run_in_subprocess
from tfvae.serving import Client, ServingError
from tfvae.serving import rest as rest_module


def pngs(images: np.ndarray) -> list[bytes]:
    return [tf.io.encode_png(image).numpy() for image in images]


def close(left, right, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def embedded_by_beam(path: str, images: np.ndarray, folder: pathlib.Path) -> np.ndarray:
    (folder / "png").mkdir()
    for i, png in enumerate(pngs(images)):
        (folder / "png" / f"{i:02d}.png").write_bytes(png)
    embed.run(path, str(folder / "png"), str(folder / "embeddings"))
    table = embed.read_embeddings(str(folder / "embeddings"))
    assert table["key"].to_pylist() == [f"{i:02d}.png" for i in range(len(images))]
    return np.stack(table["embedding"].to_numpy())


def test_one_set_of_images_gives_one_embedding_whichever_way_it_goes(served, images, tmp_path):
    x = (images / 255).astype(np.float32)
    expected = served.vae.embed(images)
    close(embedded_by_beam(served.path, images, tmp_path), expected)
    python = tf.saved_model.load(served.path).signatures["embed"](x=tf.constant(x))
    (cpp,) = run_in_subprocess(served.path, [("embed", {"x": x})])
    close(python["embedding"], expected)
    close(cpp["embedding"], expected)
    for url in served.urls.values():
        with Client(url, "pictures", batch_size=8) as client:
            for way in (images, x, x.astype(np.float64), pngs(images)):
                mean, stddev = client.embed(way, with_stddev=True)
                assert mean.dtype == stddev.dtype == np.float32 and mean.shape == stddev.shape == (13, LATENT)
                close(mean, expected)
                close(stddev, cpp["embedding_stddev"])
                np.testing.assert_array_equal(client.embed(way), mean)


def test_the_other_signatures_equal_the_model(served, url, images):
    noise = np.random.default_rng(1).normal(size=[13, 5, LATENT]).astype(np.float32)
    x = (images / 255).astype(np.float32)
    (cpp,) = run_in_subprocess(served.path, [("score", {"x": x, "noise": noise})])
    with Client(url, "pictures", version=VERSION, batch_size=5) as client:
        close(client.reconstruct(x), served.vae.reconstruct(x))
        close(client.decode(noise[:, 0]), served.vae.decode(noise[:, 0]).mean())
        close(client.sample(noise[:, 0]), served.vae.decode(noise[:, 0]).mean())  # of a standard normal prior
        for way in (x, images, pngs(images)):
            score = client.score(way, noise)
            close(score.elbo, cpp["elbo"])
            close(score.importance_weighted_bound, cpp["importance_weighted_bound"])
            assert score.elbo.shape == (13,)


def test_rest_rows_and_columns_carry_the_same_float32(served, images):
    """Not within a tolerance: the numbers that come back are the session's, bit for bit."""
    x = images[:8] / np.float32(255) * np.float32(0.3)
    (cpp,) = run_in_subprocess(served.path, [("embed", {"x": x})])
    for by_rows in (False, True):
        with Client(served.urls["http"], "pictures", by_rows=by_rows) as client:
            np.testing.assert_array_equal(client.embed(x), cpp["embedding"])
            np.testing.assert_array_equal(client.embed(pngs(images)), client.embed(images))
            assert client.decode(np.zeros([2, LATENT])).shape == (2, *SHAPE)


def test_no_row_depends_on_its_batch(served, url, images):
    order = np.random.default_rng(2).permutation(13)
    with Client(url, "pictures") as client:
        served.model.batches.clear()
        whole = client.embed(images)
        close(client.embed(images[order]), whole[order], 1e-6)
        close(np.concatenate([client.embed(images[:3]), client.embed(images[3:])]), whole, 1e-6)
    assert served.model.batches == [("embed_uint8", size) for size in (64, 64, 8, 64)]
    with Client(url, "pictures", batch_size=1) as client:
        close(client.embed(images), whole, 1e-6)


def test_large_inputs_are_split_in_order(served, url, faults):
    z = np.random.default_rng(3).normal(size=[150, LATENT]).astype(np.float32)
    served.model.batches.clear()
    with Client(url, "pictures") as client:
        close(client.decode(z), served.vae.decode(z).mean())
    assert faults.requests == 3
    assert served.model.batches == [("decode", 64)] * 3
    with Client(url, "pictures", batch_size=150) as client, pytest.raises(ServingError, match="Task size 150"):
        client.decode(z)


def test_no_rows_give_an_array_of_the_right_width(served, url, faults):
    with Client(url, "pictures") as client:
        for x in (np.zeros([0, *SHAPE], np.uint8), np.zeros([0, *SHAPE]), []):
            mean, stddev = client.embed(x, with_stddev=True)
            assert mean.shape == stddev.shape == (0, LATENT) and mean.dtype == np.float32
        assert client.decode(np.zeros([0, LATENT])).shape == (0, *SHAPE)
        assert client.score(np.zeros([0, *SHAPE]), np.zeros([0, 2, LATENT])).elbo.shape == (0,)
    assert faults.requests == 0


def test_metadata_and_status(served, url):
    with Client(url, "pictures") as client:
        found = client.signatures()
        assert client.status() == {VERSION: "AVAILABLE"}
    declared = tf.saved_model.load(served.path).signatures
    assert found.keys() == declared.keys()
    for name, signature in declared.items():
        for tensors, specs in (
            (found[name].inputs, signature.structured_input_signature[1]),
            (found[name].outputs, signature.structured_outputs),
        ):
            assert {key: (info.dtype, info.shape) for key, info in tensors.items()} == {
                key: (f"DT_{spec.dtype.name.upper().replace('FLOAT32', 'FLOAT')}", tuple(spec.shape))
                for key, spec in specs.items()
            }


def test_a_refusal_comes_at_once_with_the_servers_words_and_its_rows(url, scheme, faults, images):
    code = {"http": "HTTP 400", "grpc": "INVALID_ARGUMENT"}[scheme]
    files = pngs(images)
    files[10] = b"GIF89a"
    with Client(url, "pictures", batch_size=8) as client:
        with pytest.raises(ServingError, match="PNG or JPEG") as caught:
            client.embed(files)
        assert (caught.value.code, caught.value.rows, faults.requests) == (code, (8, 12), 2)
        with pytest.raises(ServingError, match=r"\[8 8 7 1\].*\[B, 8, 6, 1\]") as caught:  # padded
            client.embed(np.zeros([2, 8, 7, 1], np.uint8))
        assert (caught.value.rows, faults.requests) == ((0, 1), 3)


@pytest.mark.parametrize("name, version", [("other", None), ("pictures", 3), ("a/b", None)])
def test_a_model_or_version_that_is_not_served(url, scheme, name, version, images):
    code = {"http": "HTTP 404", "grpc": "NOT_FOUND"}[scheme]
    with Client(url, name, version) as client:
        for ask in (lambda: client.embed(images), client.signatures, client.status):
            with pytest.raises(ServingError) as caught:
                ask()
            assert caught.value.code == code and name in caught.value.message


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_what_passes_is_asked_again(url, code, faults, images, monkeypatch):
    pauses = []
    monkeypatch.setattr("tfvae.serving.retries.time.sleep", pauses.append)
    with Client(url, "pictures") as client:
        expected = client.embed(images)
        faults.requests, faults.queue[:] = 0, [code, code]
        np.testing.assert_array_equal(client.embed(images), expected)
        assert faults.requests == 3 and len(pauses) == 2
    faults.queue[:] = [code] * 3
    with Client(url, "pictures", retries=1) as client, pytest.raises(ServingError, match="for a test"):
        client.embed(images)
    assert faults.queue == [code]


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "INTERNAL", "UNIMPLEMENTED", "PERMISSION_DENIED"])
def test_what_does_not_pass_is_not(url, code, faults, images):
    faults.queue[:] = [code]
    with Client(url, "pictures") as client, pytest.raises(ServingError, match=r"rows 0 to 12.*for a test"):
        client.embed(images)
    assert faults.requests == 1


def test_a_slow_server_is_given_up_and_asked_again(url, faults, images):
    with Client(url, "pictures", timeout=0.4, retries=0) as client:
        client.status()
        faults.queue[:] = ["slow"]
        started = time.monotonic()
        with pytest.raises(ServingError, match=r"(?i)time|deadline"):
            client.embed(images)
        assert time.monotonic() - started < SLOW
    faults.queue[:] = ["slow"]
    with Client(url, "pictures", timeout=0.7) as client:
        assert client.embed(images).shape == (13, LATENT)
    assert not faults.queue


def test_a_server_that_drips_is_given_up(served):
    """Each byte comes in time, and the answer never does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b" " * 10)
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "pictures", timeout=0.3, retries=0)
        started = time.monotonic()
        with pytest.raises(ServingError, match=r"no whole answer in 0\.3 s"):
            client.decode(np.zeros([1, 2]))
        assert time.monotonic() - started < 3


def test_a_rest_server_that_dies_in_mid_answer_is_asked_again(faults):
    contents = json.dumps({"outputs": [[0.5, 1.5]]}).encode()
    with serve_http(Broken, contents=contents, cuts=[9, 0], faults=faults) as port:
        answer = Client(f"http://127.0.0.1:{port}", "pictures").decode(np.zeros([1, 2]))
    np.testing.assert_array_equal(answer, [[0.5, 1.5]])
    assert faults.requests == 3


def test_an_answer_in_chunks_may_break_off_too():
    """As a proxy sends it, which need not say how long it will be."""
    whole = b'12\r\n{"outputs": [[0.5,\r\n6\r\n 1.5]]\r\n1\r\n}\r\n0\r\n\r\n'
    header = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    served = []

    class Chunks(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.rfile.read1()
            served.append(self.client_address)
            self.wfile.write(header + (whole if len(served) == 3 else whole[: 10 * len(served)]))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Chunks) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        answer = Client(f"http://127.0.0.1:{server.server_address[1]}", "pictures").decode(np.zeros([1, 2]))
        server.shutdown()
    np.testing.assert_array_equal(answer, [[0.5, 1.5]])
    assert len(served) == 3


def test_a_grpc_server_that_dies_and_comes_back_is_asked_again(served, images):
    faults = Faults()
    faults.queue[:] = ["slow"]
    with contextlib.ExitStack() as servers:
        port = servers.enter_context(serve_grpc(served.model, faults))

        def fall_and_rise() -> None:
            while not faults.requests:
                time.sleep(0.02)
            servers.close()
            servers.enter_context(serve_grpc(served.model, faults, port))

        restart = threading.Thread(target=fall_and_rise)
        restart.start()
        with Client(f"grpc://127.0.0.1:{port}", "pictures", retries=8) as client:
            assert client.embed(images).shape == (13, LATENT)
        restart.join()
    assert faults.requests == 2


def test_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ServingError, match="CONNECTION") as caught:
        Client(f"http://127.0.0.1:{port}", "pictures", retries=1).decode(np.zeros([1, 2]))
    assert caught.value.passing
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        Client(f"grpc://127.0.0.1:{port}", "pictures", retries=1).decode(np.zeros([1, 2]))


@pytest.mark.parametrize(
    "contents, words",
    [
        (b"<html>It works!</html>", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "expected an object"),
        (b'{"predictions": [[1.0, 2.0]]}', "expected 'outputs'"),
        (b'{"outputs": [[1.0, 2.0], [3.0, 4.0]]}', "expected 1 rows"),
        (b'{"outputs": []}', "expected 1 rows"),
        (b'{"outputs": 3.0}', "expected 1 rows"),
        (b'{"outputs": {"other": [[1.0]], "more": [[1.0]]}}', "expected 'reconstruction'"),
        (b'{"outputs": [["NaN", 1.0]]}', "other than numbers"),
        (b'{"outputs": [["1.0", "2.0"]]}', "other than numbers"),
        (b'{"outputs": [[null, 1.0]]}', "other than numbers"),
        (b'{"outputs": [[true, false]]}', "other than numbers"),
        (b'{"outputs": [[1.0], [1.0, 2.0]]}', "differ in length"),
        (b'{"outputs": [[1e300]]}', "too large for float32"),
        (b'{"outputs": [[1' + b"0" * 400 + b"]]}", "numbers"),
        (b'{"outputs": [[' + b"1.0, " * 1000 + b"1.0]]}", "longer than 3,000 bytes"),
    ],
)
def test_an_answer_that_is_none_is_an_error_that_says_so(faults, contents, words):
    with serve_http(Broken, contents=contents, cuts=[], faults=faults) as port:
        limit = 3000 if words.startswith("longer") else 1 << 20
        client = Client(f"http://127.0.0.1:{port}", "pictures", max_answer_bytes=limit)
        with pytest.raises(ServingError, match=words) as caught:
            client.decode(np.zeros([1, 2]))
    assert (caught.value.code, faults.requests) == ("BAD_ANSWER", 1)


def test_bare_nan_and_infinity_are_what_the_server_writes(faults):
    contents = b'{"outputs": [[NaN, -Infinity, 0.1]]}'
    with serve_http(Broken, contents=contents, cuts=[], faults=faults) as port:
        answer = Client(f"http://127.0.0.1:{port}", "pictures").decode(np.zeros([1, 2]))
    np.testing.assert_array_equal(answer, np.array([[np.nan, -np.inf, 0.1]], np.float32))


@pytest.mark.parametrize("contents", [b"{}", b'{"metadata": 3}', b'{"metadata": {"signature_def": []}}', b"[]"])
def test_metadata_that_is_none(faults, contents):
    with serve_http(Broken, contents=contents, cuts=[], faults=faults) as port:
        client = Client(f"http://127.0.0.1:{port}", "pictures")
        for ask in (client.signatures, client.status, lambda: client.decode(np.zeros([0, 2]))):
            with pytest.raises(ServingError) as caught:
                ask()
            assert caught.value.code == "BAD_ANSWER"


def test_the_words_of_older_servers(faults):
    """Early releases escaped errors as C does, which is no JSON."""
    contents = rb"""{ "error": "no such input: \'y\' \303\251" }"""
    with serve_http(Broken, contents=contents, cuts=[], faults=faults, code=400) as port:
        client = Client(f"http://127.0.0.1:{port}", "pictures")
        with pytest.raises(ServingError, match=r"HTTP 400: .*no such input"):
            client.decode(np.zeros([1, 2]))


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_rows_are_not_sent_where_a_redirect_points(faults, code):
    elsewhere, contents = Faults(), b'{"outputs": [[1.0]]}'
    with (
        serve_http(Broken, contents=contents, cuts=[], faults=elsewhere) as other,
        serve_http(Broken, cuts=[], faults=faults, code=code, location=f"http://127.0.0.1:{other}/") as port,
    ):
        client = Client(f"http://127.0.0.1:{port}", "pictures")
        with pytest.raises(ServingError, match=f"HTTP {code}"):
            client.decode(np.zeros([1, 2]))
    assert (faults.requests, elsewhere.requests) == (1, 0)


def test_grpc_answers_that_are_none(served, images, monkeypatch):
    from tensorflow.core.framework import tensor_pb2

    from tests.serving import fronts

    def answers(**fields):
        proto = tensor_pb2.TensorProto(**fields)
        monkeypatch.setattr(fronts, "as_proto_field", lambda value: proto)

    def shape(*sizes):
        return {"dim": [{"size": size} for size in sizes]}

    with Client(served.urls["grpc"], "pictures") as client:
        for fields, words in (
            ({"dtype": 1, "tensor_shape": shape(13, 10**9), "float_val": [1.0]}, "1 numbers for shape"),
            ({"dtype": 1, "tensor_shape": shape(13, 1), "tensor_content": b"\0" * 53}, "13 numbers for shape"),
            ({"dtype": 1, "tensor_shape": shape(-13, -1), "float_val": [1.0] * 13}, "13 numbers for shape"),
            ({"dtype": 3, "tensor_shape": shape(13, 1), "int_val": [1] * 13}, "DT_INT32, expected DT_FLOAT"),
            ({"dtype": 1, "tensor_shape": shape(12, 1), "float_val": [1.0] * 12}, "expected 13 rows"),
        ):
            answers(**fields)
            with pytest.raises(ServingError, match=words) as caught:
                client.embed(images)
            assert caught.value.code == "BAD_ANSWER"
        answers(dtype=1, tensor_shape=shape(13, 2), tensor_content=np.arange(26, dtype="<f4").tobytes())
        np.testing.assert_array_equal(client.embed(images), np.arange(26).reshape(13, 2))
    with Client(served.urls["grpc"], "pictures", max_answer_bytes=100) as client:
        with pytest.raises(ServingError, match="longer than 100 bytes") as caught:
            client.embed(images)
        assert caught.value.code == "BAD_ANSWER" and not caught.value.passing


def test_every_float32_survives_the_text():
    from tests.serving.json_tensor import decimal

    bits = np.random.default_rng(4).integers(0, 1 << 32, 20_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([bits[np.isfinite(bits)], np.float32([0, -0.0, 1, 0.1, 1e-45, 3.4028235e38, 16777217])])
    text = "[" + ", ".join(decimal(value.item()) for value in values) + "]"
    read = rest_module._array("values", json.loads(text))
    np.testing.assert_array_equal(read.view(np.uint32), values.view(np.uint32))
    sent = json.loads(json.dumps(rest_module._values(values)))
    np.testing.assert_array_equal(np.float32(sent).view(np.uint32), values.view(np.uint32))
