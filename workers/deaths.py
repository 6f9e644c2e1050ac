"""Why a training process died, or a run in it ended: in words, for the trial's record."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

_HINTS = {
    "SIGSEGV": "a segmentation fault",
    "SIGBUS": "a bus error: a full disk or /dev/shm does this",
    "SIGILL": "an instruction that this processor does not know",
    "SIGFPE": "an arithmetic error",
    "SIGABRT": "a library gave up",
    "SIGXCPU": "its limit of CPU time was reached",
    "SIGXFSZ": "its limit of file size was reached",
}
_OUT_OF_MEMORY_NAMES = {"ResourceExhaustedError", "OutOfMemoryError"}
_OUT_OF_MEMORY_WORDS = (
    "RESOURCE_EXHAUSTED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    # What TensorFlow says if a batch's copy to the GPU finds no room.
    "Dst tensor is not initialized",
)


def cause_of_death(code: int, oom_kills_before: int | None, oom_kills_after: int | None) -> str:
    """How a process died, from its exit code, -n for signal n, and the kernel's count of those killed for memory.

    The count, `oom_kills`, is of the whole worker: None where it cannot be read.
    """
    if code >= 0:
        return f"the training process exited with code {code}"
    name = _signal_name(-code)
    if name == "SIGKILL":
        if oom_kills_before is None or oom_kills_after is None:
            return "the training process was killed by SIGKILL; the system may have run out of memory"
        if oom_kills_after > oom_kills_before:
            return "out of memory: the kernel killed the training process (SIGKILL)"
        return "the training process was killed by SIGKILL, and not by the kernel for lack of memory"
    hint = _HINTS.get(name)
    return f"the training process was killed by {name}" + (f", {hint}" if hint else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have no name
        return f"signal {number}"


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this control group (v2) the kernel has killed for lack of memory; None if unknown."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        own = next(line.removeprefix("0::") for line in groups if line.startswith("0::"))
        events = (root / "sys/fs/cgroup" / own.lstrip("/") / "memory.events").read_text()
        return next(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return None


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, says that memory ran out: Python's, NumPy's, or a backend's."""
    return any(
        isinstance(cause, MemoryError)
        or type(cause).__name__ in _OUT_OF_MEMORY_NAMES
        or any(words in str(cause) for words in _OUT_OF_MEMORY_WORDS)
        for cause in _with_causes(error)
    )


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
