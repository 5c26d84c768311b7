"""Runs pytest in forks of one process that has the libraries loaded: a run costs the tests and little else.

Every line of the input is JSON: test files, CPU seconds allowed, and a file for what pytest prints. Every line of the
output is the exit status (negative: the signal) and the CPU seconds used.
"""

from __future__ import annotations

import json
import os
import resource
import sys


def main() -> None:
    # nothing of mpidvc: a fork has to read it as it is then
    import h5py  # noqa: F401
    import numpy  # noqa: F401
    import pytest
    import scipy.ndimage
    import scipy.spatial  # noqa: F401

    assert not any(name.partition(".")[0] == "mpidvc" for name in sys.modules)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 70
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (asked["limit"], asked["limit"] + 5))
                out = os.open(asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                nothing = os.open(os.devnull, os.O_RDONLY)
                for number, target in ((nothing, 0), (out, 1), (out, 2)):
                    os.dup2(number, target)
                options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
                status = int(pytest.main([*options, *asked["tests"]]))
                sys.stdout.flush()
            finally:
                os._exit(status)
        _, ended, usage = os.wait4(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(ended), usage.ru_utime + usage.ru_stime]), flush=True)


if __name__ == "__main__":
    main()
