"""The client as a distribution of its own, where neither TensorFlow nor Beam nor ``tfvae`` is installed."""

import http.server
import json
import pathlib
import subprocess
import sys
import threading
import zipfile

import pytest

import tfvae

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASK = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tensorflow_probability", "apache_beam", "tfvae", "pipelines"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import numpy as np, tfvae_client
with tfvae_client.Client(sys.argv[1], "mnist", retries=0) as client:
    print(client.embed(np.full([2, 3], 0.5, np.float32)).tolist())
try:
    tfvae_client.Client("grpc://localhost:1", "mnist")
except ModuleNotFoundError as error:
    print(error)
"""


class Twice(http.server.BaseHTTPRequestHandler):
    """Answers with twice what came, and a standard deviation of ones."""

    def do_POST(self):
        x = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]["x"]
        z = [[2 * value for value in row] for row in x]
        answer = json.dumps({"outputs": {"embedding": z, "embedding_stddev": [[1.0] * len(row) for row in x]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_the_wheel_holds_the_client_alone_and_asks(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(ROOT / "client")], check=True)
    (wheel,) = tmp_path.glob("tfvae_client-*.whl")
    assert wheel.name.startswith(f"tfvae_client-{tfvae.__version__}-")
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if name.endswith(".py")}
        opened.extractall(tmp_path / "installed")
    serving = {f"tfvae_client/serving/{path.name}" for path in (ROOT / "tfvae" / "serving").glob("*.py")}
    names = {f"tfvae_client/pipelines/{name}.py" for name in ("__init__", "contract", "extras")}
    assert held == serving | names | {"tfvae_client/__init__.py"}
    server = http.server.HTTPServer(("127.0.0.1", 0), Twice)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        line = [sys.executable, "-c", ASK, f"http://127.0.0.1:{server.server_port}"]
        path = {"PYTHONPATH": str(tmp_path / "installed")}
        done = subprocess.run(line, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=60)
    finally:
        server.shutdown()
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]",
        "tensorflow is not installed: pip install 'tfvae-client[grpc]'",
    ]
