"""How much memory this process has, now and at its peak."""

import ctypes
import os
import resource
import sys
from pathlib import Path


def resident_mib() -> float:
    """Memory of this process that is in use now, MiB; its peak where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return peak_resident_mib()


def peak_resident_mib() -> float:
    """The most memory that this process has had so far, MiB."""
    # On Linux a child's `ru_maxrss` may be its parent's; VmHWM is not.
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def release_free_memory() -> None:
    """Gives the system back what was freed but kept for later, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
