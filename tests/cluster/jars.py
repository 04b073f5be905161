"""The Java side of the cluster tests: pinned jars from Maven Central, each held against its size and SHA-256.

``jars_of/NAME.xml`` says what for; ``jars_of/NAME.sha256`` is what Maven resolves for it, a line a jar: SHA-256, bytes,
path below Maven Central. To renew the list:

    mvn -B -C -f tests/cluster/jars_of/NAME.xml dependency:copy-dependencies -DincludeScope=runtime \\
        -Dmdep.useRepositoryLayout=true -DoutputDirectory=$PWD/.cache/resolved
    (cd .cache/resolved && find * -name '*.jar' | LC_ALL=C sort | while read jar; do
        echo "$(sha256sum < $jar | cut -c1-64) $(stat -c %s $jar) $jar"; done) > tests/cluster/jars_of/NAME.sha256
"""

import concurrent.futures
import hashlib
import os
import pathlib
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator

LISTS = pathlib.Path(__file__).resolve().parent / "jars_of"
CACHE = LISTS.parents[2] / ".cache" / "maven"
CENTRAL = os.environ.get("MAVEN_CENTRAL", "https://repo1.maven.org/maven2")
_TRIES, _CONNECTIONS, _BLOCK = 3, 8, 1 << 20


def fetch(name: str, cache: pathlib.Path = CACHE) -> list[pathlib.Path]:
    """Every jar of a list, from the cache or from Maven Central.

    Raises:
        RuntimeError: One cannot be had, or is not the one that was pinned.
    """
    with concurrent.futures.ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(lambda entry: _fetch(cache, *entry), _listed(name)))


def _listed(name: str) -> Iterator[tuple[str, int, str]]:
    for line in (LISTS / f"{name}.sha256").read_text(encoding="ascii").splitlines():
        digest, size, path = line.split()
        yield digest, int(size), path


def _fetch(cache: pathlib.Path, digest: str, size: int, path: str) -> pathlib.Path:
    jar = cache / path.rsplit("/", 1)[-1]
    if not jar.is_file() or _is_other(jar.read_bytes(), digest):
        content = _download(f"{CENTRAL}/{path}", size)
        if _is_other(content, digest):
            raise RuntimeError(
                f"{CENTRAL}/{path} is not the file of {size:,} bytes that {LISTS.name} pins: use another mirror"
            )
        cache.mkdir(parents=True, exist_ok=True)
        draft = jar.with_name(f"{jar.name}-{uuid.uuid4().hex}")
        draft.write_bytes(content)
        os.replace(draft, jar)
    return jar


def _is_other(content: bytes, digest: str) -> bool:
    return hashlib.sha256(content).hexdigest() != digest


def _download(url: str, size: int) -> bytes:
    """At most one byte more than was promised, so that a wrong file is noticed and not swallowed."""
    for left in reversed(range(_TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return response.read(size + 1)
        except (OSError, urllib.error.URLError) as error:
            if not left:
                raise RuntimeError(
                    f"{url} cannot be fetched ({error}): the cluster tests need Maven Central, or a mirror named "
                    "by MAVEN_CENTRAL"
                ) from error
    raise AssertionError("the last try returns or raises")


def job_server(name: str, main: str, cache: pathlib.Path = CACHE) -> pathlib.Path:
    """All jars of a list as one, which is what Beam's own job server jar is, or the jar that NAME_JOB_SERVER_JAR names.

    It is made once. Flink and Spark send the jars of a job one by one and take a tenth of a second for each: as many as
    these take longer than the job.

    Raises:
        RuntimeError: A jar cannot be had.
    """
    variable = f"{name.upper()}_JOB_SERVER_JAR"
    if own := os.environ.get(variable):
        if not os.path.isfile(own):
            raise RuntimeError(f"{variable} is {own}, which is not a file: name Beam's job server jar")
        return pathlib.Path(own).resolve()
    made_of = (LISTS / f"{name}.sha256").read_bytes() + pathlib.Path(__file__).read_bytes()
    merged = cache / f"{name}-job-server-{hashlib.sha256(made_of).hexdigest()[:16]}.jar"
    if not merged.is_file():
        jars = fetch(name, cache)
        draft = merged.with_name(f"{merged.name}-{uuid.uuid4().hex}")
        try:
            _merge(jars, main, draft)
            os.replace(draft, merged)
        finally:
            draft.unlink(missing_ok=True)
    return merged


def _merge(jars: list[pathlib.Path], main: str, path: pathlib.Path) -> None:
    """The first of each file and folder; lists of services are joined, signatures of single jars left out."""
    services: dict[str, list[bytes]] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        target.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\nMain-Class: {main}\nMulti-Release: true\n")
        seen = {"META-INF/MANIFEST.MF"}
        for jar in jars:
            with zipfile.ZipFile(jar) as source:
                for name in source.namelist():
                    if name.startswith("META-INF/services/") and not name.endswith("/"):
                        services.setdefault(name, []).append(source.read(name))
                    elif name not in seen and not name.endswith((".SF", ".RSA", ".DSA", "module-info.class")):
                        seen.add(name)
                        target.writestr(name, source.read(name))
        for name, lists in services.items():
            target.writestr(name, b"\n".join(lists))
