"""Arrays' headers are parsed by one thread at a time: Python 3.11's parser is not for several."""

import ast
import concurrent.futures
import threading
import time

import numpy as np

from pipelines.formats import arrays
from pipelines.sources import make_source


def test_threads_parse_headers_one_after_another(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros([3, 2], np.float32))
    np.savez(tmp_path / "x.npz", x=np.zeros([3, 2], np.float32))
    inside, most, parse = [], [], ast.literal_eval

    def watched(text):
        if "descr" not in str(text):  # what modules parse as they are imported
            return parse(text)
        inside.append(threading.get_ident())
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", watched)
    archive = make_source("npz", str(tmp_path / "x.npz"))
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        loads = [threads.submit(arrays.load_npy, str(tmp_path / "x.npy")) for _ in range(8)]
        loads += [threads.submit(archive.plan) for _ in range(8)]
        for load in loads:
            load.result()
    assert len(most) > 8 and max(most) == 1
