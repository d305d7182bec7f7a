"""Inside an imitated machine: run the notebooks named, each alone in the working folder, and say
what they showed.

    python play.py FOLDER PARAMETERS_AS_JSON NOTEBOOK...

Started by conftest.py with the tests' Python; the kernel is the host's. The last line is JSON: what
the first cell of each notebook printed, its seconds and pictures, and then every file below the
folders that hosts keep, with its size.
"""

import json
import sys
import time
from pathlib import Path

import papermill

PATIENCE = 1800  # seconds, as of tests/conftest.py, which this machine need not have
KEPT = ("/content", "/kaggle", "/storage", "/notebooks", "/home/reader")


def main() -> None:
    here, parameters, notebooks = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    shown = {}
    for name in notebooks:
        declared = papermill.inspect_notebook(str(here / name))
        values = {key: value for key, value in parameters.items() if key in declared}
        started = time.monotonic()
        executed = papermill.execute_notebook(
            str(here / name),
            str(here / f"done_{name}"),
            values,
            cwd=str(here),
            kernel_name="python3",
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            log_output=False,
            progress_bar=False,
        )
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        shown[name] = {
            "seconds": round(time.monotonic() - started, 1),
            "opening": "".join(output.get("text", "") for output in code[0].outputs),
            "loud": [
                output.text
                for cell in code
                for output in cell.outputs
                if output.get("name") == "stderr"
            ],
            "pictures": sum(
                kind.startswith("image/")
                for cell in code
                for output in cell.outputs
                for kind in output.get("data", {})
            ),
        }
        print(f"{name:30s} {shown[name]['seconds']:6.1f} s", flush=True)
    files = {
        str(path): path.stat().st_size
        for folder in KEPT
        for path in Path(folder).rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
    print(json.dumps({"notebooks": shown, "files": files}))


if __name__ == "__main__":
    main()
