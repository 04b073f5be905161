"""Missing numbers on the wire: NaN goes to a model that leaves them out, as TF Serving reads it, and to no other."""

import contextlib
import json
import pathlib

import numpy as np
import pytest

import tfvae
from tests.serving import json_tensor
from tests.serving.fronts import Rest, serve_grpc, serve_http
from tests.serving.rules import Faults, ServedModel
from tfvae import likelihoods, networks, posteriors
from tfvae.serving import Client, ServingError, rest

X = np.where(np.eye(5, 4), np.nan, 0.25).astype(np.float32)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("with_orjson", [False, True])
def test_nan_is_a_bare_word_in_the_json(by_rows, with_orjson, monkeypatch):
    if not with_orjson:
        monkeypatch.setattr(rest, "orjson", None)
    elif rest.orjson is None:
        pytest.skip("orjson is not installed")
    sent: list[bytes] = []
    answer = {"predictions": [[0.0]]} if by_rows else {"outputs": [[0.0]]}
    monkeypatch.setattr(rest.Rest, "_ask", lambda self, method, suffix, body: sent.append(body) or answer)
    asked = rest.Rest("http://host", "m", None, 1.0, 1 << 20, by_rows)
    for x in (X, np.nan_to_num(X)):
        asked.predict("embed", {"x": x}, ("embedding",))
        info = {"x": json_tensor.TensorInfo("x:0", "float32", (None, 4))}
        np.testing.assert_array_equal(json_tensor.tensors(json_tensor.parse(sent[-1]), info)[0]["x"], x)
    with pytest.raises(ValueError):  # the bare word is there for rows that need it, and else the body is JSON
        json.loads(sent[0], parse_constant=lambda word: int(word))
    json.loads(sent[1], parse_constant=lambda word: int(word))


def test_nan_is_sent_where_it_is_said_to_be_a_missing_number():
    with pytest.raises(
        ValueError, match=r"x holds NaN .* in row 0: mend or drop that row; NaN stands for a missing numb"
    ):
        Client("http://host:1", "m").embed(X)
    missing = Client("http://host:1", "m", missing=True, retries=0)
    with pytest.raises(ServingError, match="CONNECTION"):
        missing.embed(X)
    with pytest.raises(ValueError, match="x holds infinite values in row 2: mend or drop that row"):
        missing.embed(np.where(np.arange(5)[:, None] == 2, np.inf, X))
    for ask in (lambda: missing.decode(X), lambda: missing.embed(X, condition=X)):
        with pytest.raises(ValueError, match="holds NaN or infinite values"):
            ask()
    with pytest.raises(ValueError, match="missing is 'yes', expected True or False"):
        Client("http://host:1", "m", missing="yes")


@pytest.mark.slow
def test_a_served_model_takes_missing_numbers_over_both_fronts(tmp_path):
    likelihood = likelihoods.missing(likelihoods.bernoulli([4]))
    vae = tfvae.VAE(networks.mlp([3]), networks.mlp([3]), posteriors.diagonal_normal(2), likelihood, seed=0)
    tfvae.export(vae, tmp_path / "m", warmup_batch_sizes=[1])
    model = ServedModel(pathlib.Path(tmp_path / "m"), (1, 8))
    noise = np.random.default_rng(0).normal(size=[5, 2, 2]).astype(np.float32)
    with contextlib.ExitStack() as stack:
        stack.callback(model.close)
        ports = {
            "grpc": stack.enter_context(serve_grpc(model, Faults())),
            "http": stack.enter_context(serve_http(Rest, model=model, faults=Faults())),
        }
        for scheme, port in ports.items():
            for by_rows in (False, True) if scheme == "http" else (False,):
                with Client(f"{scheme}://127.0.0.1:{port}", "m", missing=True, by_rows=by_rows) as client:
                    np.testing.assert_allclose(client.embed(X), vae.embed(X), atol=1e-5)
                    np.testing.assert_allclose(client.reconstruct(X), vae.reconstruct(X), atol=1e-5)
                    assert np.isfinite(client.score(X, noise).elbo).all()
