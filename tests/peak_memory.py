"""Run ``mpidvc arguments…`` as one rank and print its peak memory: a line ``peak BYTES`` on stderr."""

import os
import sys
from pathlib import Path

from mpidvc.main import main

if __name__ == "__main__":
    status = main()
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    os.write(2, f"peak {peak}\n".encode())
    sys.exit(status)
