"""`make test`: the checks in parts, two at a time where there are two cores, and a summary line a part.

What a part prints comes when it ends, so that two do not mix.

    python -m tests.parts [PART]...
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

PYTEST = (sys.executable, "-m", "pytest")
APART = (
    "notebooks",
    "faults",
    "site",
    "hosts",
    "test_download.py",
)  # parts and targets of their own
PARTS = {  # the long ones first: the short ones fill what is left
    "lint": (sys.executable, "-m", "ruff", "check", "."),
    "units": (*PYTEST, "tests", *(f"--ignore=tests/{name}" for name in APART)),
    "series": (*PYTEST, "tests/notebooks"),  # papermill, on a small set
    "nbval": (
        sys.executable,
        "-m",
        "tests.notebooks.compare",
    ),  # stored outputs against those of this machine
    "faults": (
        *PYTEST,
        "tests/faults",
        "-m",
        "not long",
    ),  # two minutes of them; all are `make test-faults`
    "download": (
        *PYTEST,
        "tests/test_download.py",
    ),  # the real Kaggle client against a server on this machine
}


def run(name: str) -> tuple[bool, str, str]:
    """Run one part: whether it passed, what it printed, and its summary line."""
    print(f"{name} started\n", end="", flush=True)  # in one piece: two lanes write
    started = time.monotonic()
    done = subprocess.run(
        PARTS[name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    text, passed = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout), done.returncode == 0
    last = text.strip().rpartition("\n")[2].strip("= ")
    return (
        passed,
        text,
        f"{name:9s} {'passed' if passed else 'FAILED'}  {time.monotonic() - started:4.0f} s  {last}",
    )


def main() -> int:
    unknown = set(sys.argv[1:]) - set(PARTS)
    if unknown:
        print(f"no part is named {min(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    started, lines, failed = time.monotonic(), {}, False
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as lanes:
        running = {lanes.submit(run, name): name for name in sys.argv[1:] or PARTS}
        try:
            for future in as_completed(running):
                name = running[future]
                passed, text, lines[name] = future.result()
                failed |= not passed
                print(f"\n== {name}: {' '.join(PARTS[name][1:])}\n{text}", flush=True)
        except KeyboardInterrupt:  # it has reached the parts that run, too; the others do not start
            lanes.shutdown(cancel_futures=True)
            return 130
    print(
        "\n".join(lines[name] for name in running.values()),
        f"in all {time.monotonic() - started:12.0f} s",
        sep="\n",
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
