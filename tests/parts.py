"""`make test`: the checks in parts, one after another, and a summary line a part.

    python -m tests.parts [PART]...
"""

import re
import subprocess
import sys
import time

PYTEST = (sys.executable, "-m", "pytest")
APART = ("notebooks", "faults", "site", "hosts", "test_download.py")  # parts and targets of their own
PARTS = {
    "lint": (sys.executable, "-m", "ruff", "check", "."),
    "units": (*PYTEST, "tests", *(f"--ignore=tests/{name}" for name in APART)),
    "download": (*PYTEST, "tests/test_download.py"),  # the real Kaggle client against a server on this machine
    "faults": (*PYTEST, "tests/faults", "-m", "not long"),  # a minute of them; all are `make test-faults`
    "series": (*PYTEST, "tests/notebooks"),  # papermill, on a small set
    "nbval": (sys.executable, "-m", "tests.notebooks.compare"),  # stored outputs against those of this machine
}


def run(name: str) -> tuple[bool, str]:
    """Run one part, its output passed through; whether it passed, and its summary line."""
    print(f"\n== {name}: {' '.join(PARTS[name][1:])}", flush=True)
    started, last = time.monotonic(), ""
    process = subprocess.Popen(PARTS[name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    passed = process.wait() == 0
    last = re.sub(r"\x1b\[[0-9;]*m", "", last).strip("= ")
    return passed, f"{name:9s} {'passed' if passed else 'FAILED'}  {time.monotonic() - started:4.0f} s  {last}"


def main() -> int:
    unknown = set(sys.argv[1:]) - set(PARTS)
    if unknown:
        print(f"no part is named {min(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    results = [run(name) for name in sys.argv[1:] or PARTS]
    print("\n" + "\n".join(line for _, line in results))
    return 0 if all(passed for passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
