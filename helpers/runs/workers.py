"""Where the points of a grid run: here one after another, in processes of this machine, or on Dask.

A function `run(point)` that returns the reason of a failure, or "", is called for each point,
wherever that is. A point whose process is killed is given to another one.
"""

import functools
import importlib
import os
import signal
import site
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType

import joblib
import torch
from filelock import FileLock, Timeout

from helpers import workspace

Run = Callable[[str], str]  # a point's name -> the reason of its failure, or ""
POOLS = 4  # of processes: a killed one takes its pool with it, and three times there is another
HELD = []  # the lock on its GPU, which a worker holds for as long as it lives


@contextmanager
def chosen(count: int, scheduler: str) -> Iterator[Callable[[Run, Sequence[str]], Iterator]]:
    """Where to run: on the cluster of a Dask scheduler, in `count` processes, or in this one.

    Args:
        count: processes of this machine; 0 and 1 are this one.
        scheduler: the address of a Dask scheduler, or "".

    Yields:
        A function that takes `run` and the points, and yields each point with what `run` returned,
        in the order in which they end.

    Raises:
        ConnectionError: no scheduler answers, or Dask is not installed.
    """
    if scheduler:
        with connect(scheduler) as client:
            yield functools.partial(on_cluster, client)
    elif count > 1:
        yield functools.partial(in_processes, count)
    else:
        yield one_after_another


def one_after_another(run: Run, points: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each point with what `run` returns for it, in this process.

    >>> list(one_after_another(lambda point: f"{point} is broken", ["a", "b"]))
    [('a', 'a is broken'), ('b', 'b is broken')]
    """
    for point in points:
        yield point, run(point)


# processes of this machine


def in_processes(count: int, run: Run, points: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each point with what `run` returns for it, `count` at a time, each process with its own GPU.

    Where a process is killed, new ones are started for the points that have not ended; what is left
    after POOLS of them is yielded with what the system said.
    """
    left = list(points)
    said = ""
    for _ in range(POOLS):
        try:
            for point, reason in in_one_pool(count, run, tuple(left)):
                left.remove(point)
                yield point, reason
            return
        except BrokenProcessPool as error:
            said = " ".join(str(error).split())
    for point in left:
        yield point, said


def in_one_pool(count: int, run: Run, points: Sequence[str]) -> Iterator[tuple[str, str]]:
    """As `in_processes`, until a process is killed.

    Raises:
        BrokenProcessPool: one was, and joblib has ended the others.
    """
    if not points:
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as locks:
        parallel = joblib.Parallel(
            min(count, len(points)),
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            initializer=start_worker,
            initargs=(os.getpid(), visible_gpus(), locks),
        )
        yield from parallel(joblib.delayed(with_name)(run, point) for point in points)


def with_name(run: Run, point: str) -> tuple[str, str]:
    """A point, and what `run` returns for it."""
    return point, run(point)


def visible_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, else all; [""] where there are none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    every = ",".join(map(str, range(torch.cuda.device_count())))
    return (named or every).split(",")


def start_worker(parent: int, gpus: Sequence[str], locks: str) -> None:
    """What a process does before its first point; joblib has given it its share of the cores.

    It takes the first GPU that no other process of the command holds, leaves Ctrl-C to the command,
    shows no progress bar, since several on one terminal say nothing, and ends when the command is
    gone; the kernel that it started sees that, and ends too.

    Args:
        parent: the process id of the command.
        gpus: their names; more processes than GPUs share them.
        locks: a folder of the command's.
    """
    number = 0
    while not HELD:
        lock = FileLock(f"{locks}/{number}")
        try:
            lock.acquire(timeout=0)
            HELD.append(lock)
        except Timeout:
            number += 1
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  open for as long as the process lives

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# a Dask cluster


def dask() -> ModuleType:
    """Dask's `distributed`, which is installed by those who have a cluster.

    Raises:
        ConnectionError: it is not installed here.
    """
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ConnectionError(
            "--scheduler needs Dask, which is not installed here: pip install distributed, the "
            "same version as on the machines of the cluster"
        ) from error


@contextmanager
def connect(scheduler: str) -> Iterator:
    """A Dask client whose cluster finds this package, wherever its processes were started.

    Raises:
        ConnectionError: no scheduler answers at this address, or Dask is not installed here.
    """
    distributed = dask()
    try:
        client = distributed.Client(scheduler)  # waits for as long as Dask's settings say
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        find_package = functools.partial(site.addsitedir, str(workspace.PROJECT))
        client.run_on_scheduler(find_package)
        client.register_worker_callbacks(find_package)  # of workers that come later, too
        yield client


def on_cluster(client, run: Run, points: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each point with what `run` returns for it, on the workers of a Dask client.

    Dask gives the point of a worker that dies to another one, three times; what it says then is the
    reason of the failure. (joblib's own way to Dask waits for such a point for ever.) A worker
    needs this Python and sees these folders; each runs as many points at a time as it has threads.
    """
    folders = {
        "ATTENTION_DATA": str(workspace.data_folder()),
        "ATTENTION_RUNS": str(workspace.runs_folder()),
        "ATTENTION_HEADLESS": "1",
    }
    futures = {
        client.submit(in_folders, folders, run, point, pure=False): point for point in points
    }
    for future in dask().as_completed(futures):
        error = future.exception()
        if error:
            yield futures[future], f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            yield futures[future], future.result()


def in_folders(folders: dict[str, str], run: Run, point: str) -> str:
    """What `run` returns for a point, in a process of somebody else's whose folders become ours."""
    os.environ.update(folders)
    return run(point)
