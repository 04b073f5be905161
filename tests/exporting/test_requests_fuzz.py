"""Thousands of malformed requests to the C++ session, in one process: none crashes it, or changes a later answer."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import tfvae
from tests.exporting.test_saved_model import IMAGES, LATENT, image_model, requests
from tfvae.checks import wire
from tfvae.checks.process import run_in_subprocess
from tfvae.checks.wire import CSessionError

EXAMPLES = 4000
DTYPES = sorted(set(wire.DTYPES) - {"string"})
CODES = {"INVALID_ARGUMENT", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
RIGHT = {"x": [8, 6, 1], "z": [LATENT], "noise": [LATENT], "image_bytes": []}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, colour: int = 0, depth: int = 8, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGES[0, :, :, 0]).save(file, kind)
    return file.getvalue()


GOOD = [saved("PNG"), saved("JPEG")]
SIZES = st.sampled_from([0, 1, 6, 8, 20_000, 65_535, 2**27, 2**31 - 1, 2**31, 2**32 - 1])


@st.composite
def damaged(draw) -> bytes:
    """A good file that is cut, or has some bytes changed, inserted or repeated."""
    content = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["cut", "change", "insert", "repeat"])):
            case "cut":
                del content[at:]
            case "change":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "insert":
                content[at:at] = draw(st.binary(max_size=8))
            case "repeat":
                content[at:at] = content[at : at + 20]
    return bytes(content)


FILES = st.one_of(
    st.binary(max_size=40),
    damaged(),
    st.sampled_from(GOOD),
    st.builds(png, SIZES, SIZES, st.sampled_from([0, 2, 3, 4, 6, 7]), st.sampled_from([1, 2, 8, 16, 33]), st.binary()),
)


@st.composite
def arrays(draw, name: str) -> np.ndarray:
    """A tensor for an input: of the right shape, near it, or of any other, of any dtype, with any values."""
    shape = [draw(st.integers(0, 3)), *([draw(st.integers(0, 3))] if name == "noise" and draw(st.booleans()) else [])]
    shape += RIGHT[name]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(shape)))
        shape[at : at + draw(st.integers(0, 2))] = draw(st.lists(st.sampled_from([0, 1, 2, 3, 6, 8]), max_size=3))
    if 0 in shape and len(shape) > 1 and draw(st.booleans()):
        shape[shape.index(0) - 1] = draw(st.sampled_from([1 << 20, 1 << 31, 1 << 40]))  # huge, and empty
    size = int(np.prod(shape)) if 0 not in shape else 0
    kind = draw(st.sampled_from([*DTYPES, "string", *(["float32"] * 8)]))
    if kind == "string":
        flat = np.empty(min(size, 2000), object)
        flat[:] = [draw(FILES)] * len(flat)
        shape = shape if len(flat) == size else [len(flat)]
        return flat.reshape(shape)
    values = np.random.default_rng(draw(st.integers(0, 9))).normal(size=size) * draw(st.sampled_from([1, 1e30, 1e300]))
    if size and draw(st.booleans()):
        values[draw(st.integers(0, size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf, -0.0]))
    with np.errstate(all="ignore"):
        return values.astype(kind).reshape(shape)


@st.composite
def images(draw, _: str) -> np.ndarray:
    files = draw(st.lists(FILES, max_size=3))
    array = np.empty(len(files), object)
    array[:] = files
    return array


SIGNATURES = {name: sorted(inputs) for name, inputs in requests(1)}


@st.composite
def malformed(draw) -> tuple[str, dict[str, np.ndarray]]:
    name = draw(st.sampled_from(sorted(SIGNATURES)))
    mostly_images = {key: key == "image_bytes" and draw(st.integers(0, 9)) > 0 for key in SIGNATURES[name]}
    return name, {key: draw(images(key) if mostly_images[key] else arrays(key)) for key in SIGNATURES[name]}


def generate(count: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    made = []

    @settings(
        max_examples=count, phases=[Phase.generate], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(malformed())
    def collect(request):
        made.append(request)

    collect()
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return tfvae.export(image_model("conv"), tmp_path_factory.mktemp("models") / "conv", warmup_batch_sizes=[1])


@pytest.mark.slow
def test_no_request_crashes_the_session_or_changes_a_later_answer(path):
    good = [one for one in requests(2) if one[0] != "serving_default"]
    bad = generate(EXAMPLES)
    assert len(bad) >= 0.9 * EXAMPLES
    sent = [*good]
    for i, request in enumerate(bad):
        sent += [request, good[i % len(good)]]
    answers = run_in_subprocess(path, sent, threads=1, timeout=600)
    first, rest = answers[: len(good)], answers[len(good) :]
    assert not any(isinstance(answer, CSessionError) for answer in first)
    refused = 0
    for i, (request, answer, after) in enumerate(zip(bad, rest[::2], rest[1::2], strict=True)):
        if isinstance(answer, CSessionError):
            assert answer.code in CODES, (request, answer)
            refused += 1
        else:
            assert all(np.isfinite(value).all() for value in answer.values()) or _large(request), request
        assert not isinstance(after, CSessionError), (request, after)
        for key, value in first[i % len(good)].items():
            np.testing.assert_array_equal(after[key], value, err_msg=str(request))
    assert 0.5 * len(bad) < refused < len(bad), "the requests are all alike"


def _large(request: tuple[str, dict[str, np.ndarray]]) -> bool:
    """Whether finite inputs are so large that float32 overflows on the way to the answer."""
    return any(value.dtype.kind == "f" and np.abs(value).max(initial=0) > 1e3 for value in request[1].values())


def test_an_image_is_refused_by_its_header_before_its_pixels_take_memory(path):
    """400 kB that decode to 400 MB of zeros. The decoder's own sentence names three sizes, the header's two."""
    zeros = zlib.compressobj(9)
    packed = b"".join(zeros.compress(bytes(20_001 * 500)) for _ in range(40)) + zeros.flush()
    whole = png(20_000, 20_000)
    bomb = whole.replace(chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", packed))
    decoded = tf.image.decode_png(bomb).shape  # it is a good picture
    assert decoded == [20_000, 20_000, 1] and len(bomb) < 500_000
    jpeg = io.BytesIO()
    Image.new("L", (60_000, 500)).save(jpeg, "JPEG")
    sent = [("embed_image_bytes", {"image_bytes": np.array([one], object)}) for one in (bomb, jpeg.getvalue(), whole)]
    sent.append(("embed_image_bytes", {"image_bytes": np.array([GOOD[1], GOOD[0]], object)}))
    *refused, answered = run_in_subprocess(path, sent)
    for answer, size in zip(refused, ("[20000 20000]", "[500 60000]", "[20000 20000]"), strict=True):
        assert isinstance(answer, CSessionError) and answer.code == "INVALID_ARGUMENT", answer
        assert f"height and width] {size}" in answer.message, answer.message
    assert not isinstance(answered, CSessionError), answered
