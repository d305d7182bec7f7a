"""What the fault tests do to a process that they start: a full disk, little memory, fewer rights.

Each is a `preexec_fn` of subprocess, real to the process and to nothing else on the machine.
"""

import ctypes
import resource
import signal

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def full_disk(size: int):
    """No file grows beyond `size` bytes: as on a full disk, but for EFBIG in place of ENOSPC."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the error, not the signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def little_memory(size: int):
    """No more than `size` bytes of address space."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


def no_overrides() -> None:
    """Root loses its right to write where a folder's mode forbids it, from the next exec on.

    Others have none.
    """
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
