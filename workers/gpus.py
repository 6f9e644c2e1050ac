"""The GPUs of this machine: what their driver tells of them, and which slot trains on which."""

from __future__ import annotations

import importlib
import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from studies.errors import FieldError, InvalidInput
from studies.protocol import Device

log = logging.getLogger(__name__)

READ_SECONDS = 5.0
"""So long, what was read of the GPUs is not read again."""
MOST_SLOTS_PER_GPU = 100

_NO_GPU = "-1"
"""What `CUDA_VISIBLE_DEVICES` must hold for a process to see none."""
_Told = TypeVar("_Told")


@dataclass(frozen=True)
class Place:
    """Where a slot trains.

    gpu: the index of its GPU; "none" hides them all; None leaves what the environment says.
    shared: whether others train on the same GPU, or may.
    """

    gpu: int | Literal["none"] | None = None
    shared: bool = False

    def __str__(self) -> str:
        return f"GPU {self.gpu}" if isinstance(self.gpu, int) else "CPU" if self.gpu == "none" else "any device"


def places(
    gpus: str | None, slots_per_gpu: int | None, slots: int | None, known: Iterable[int], visible: str | None
) -> list[Place]:
    """The place of each slot, as a worker's options say.

    gpus: "all", "none", or indices as in "0,1"; slots_per_gpu: how many slots each has, left out 1.
    slots: without GPUs of their own, left out 1; not together with GPUs that are named, or all.
    known: the indices of the GPUs that the driver tells of. visible: `CUDA_VISIBLE_DEVICES`, which narrows them.
    Raises InvalidInput, naming the option.
    """
    if slots_per_gpu is not None:
        if gpus is None or gpus.strip() == "none":
            raise _refused("--slots-per-gpu", slots_per_gpu, "goes with --gpus, such as --gpus all")
        if not 1 <= slots_per_gpu <= MOST_SLOTS_PER_GPU:
            raise _refused("--slots-per-gpu", slots_per_gpu, f"must be from 1 to {MOST_SLOTS_PER_GPU}")
    if slots is not None and slots < 1:
        raise _refused("--slots", slots, "must be at least 1")
    if gpus is None or gpus.strip() == "none":
        count = slots or 1
        return [Place(gpu=None if gpus is None else "none", shared=count > 1)] * count
    if slots is not None:
        raise _refused(
            "--slots", slots, "goes with --gpus none alone: each GPU has --slots-per-gpu slots, 1 if that is left out"
        )
    each = slots_per_gpu or 1
    return [Place(gpu, shared=each > 1) for gpu in _chosen(gpus, known, visible) for _ in range(each)]


def used(where: Iterable[Place], known: Sequence[int], visible: str | None) -> list[int]:
    """The indices of the GPUs on which slots at these places may train; see `places` for `known` and `visible`."""
    of_all = {place.gpu for place in where}
    if None in of_all:
        found = _visible(known, visible)
        return [*known] if found is None else found
    return sorted(gpu for gpu in of_all if isinstance(gpu, int))


def _visible(known: Iterable[int], visible: str | None) -> list[int] | None:
    """The indices of the GPUs that programs may see; None if `CUDA_VISIBLE_DEVICES` holds anything but indices.

    CUDA ends at the first entry that is no GPU of the machine, and so does this.
    """
    indices = sorted(known)
    if visible is None:
        return indices
    entries = visible.split(",") if visible.strip() else []
    if not all(re.fullmatch(r"\s*-?\d{1,9}\s*", entry) for entry in entries):
        return None
    return list(itertools.takewhile(indices.__contains__, map(int, entries)))


def _chosen(gpus: str, known: Iterable[int], visible: str | None) -> list[int]:
    allowed = _visible(known, visible)
    if allowed is None:
        raise _refused("CUDA_VISIBLE_DEVICES", visible, "must hold indices, such as 0,1, to go with --gpus")
    if not allowed:
        why = "" if visible is None else f", with CUDA_VISIBLE_DEVICES={visible!r}"
        raise _refused(
            "--gpus", gpus, f"no NVIDIA GPU is found here{why} (nvidia-smi should list them); give --gpus none for CPUs"
        )
    if gpus.strip() == "all":
        return allowed
    entries = [entry.strip() for entry in gpus.split(",")]
    if not all(re.fullmatch(r"\d{1,4}", entry) for entry in entries):
        raise _refused("--gpus", gpus, "must be all, none, or indices such as 0,1")
    indices = [int(entry) for entry in entries]
    if len(set(indices)) < len(indices):
        raise _refused("--gpus", gpus, "names a GPU twice; for several slots on each give --slots-per-gpu")
    if missing := [index for index in indices if index not in allowed]:
        raise _refused("--gpus", gpus, f"there is no GPU {missing[0]} here; there are: {', '.join(map(str, allowed))}")
    return indices


def _refused(option: str, value: object, message: str) -> InvalidInput:
    return InvalidInput([FieldError(option, value, message)])


def environment(place: Place, of_worker: Mapping[str, str]) -> dict[str, str]:
    """The environment of a slot's training process; what the worker's own says of memory stays as it is.

    Processes that share a GPU take its memory as they need it; else the first would take it all.
    """
    own = {
        # A heap that grows in steps of 64 MiB: with glibc's 128 KiB an epoch of fashion-mnist-cnn takes 4.0 s of
        # CPU time, with this 2.2 s, and 113 MB more memory. Other allocators do not read it.
        "MALLOC_TOP_PAD_": str(64 * 2**20),
        **of_worker,
    }
    own.pop("LR_ARENA_TOKEN", None)  # a task's code is not to speak for its worker
    if place.gpu is not None:
        # CUDA's own order is the fastest first; the driver, and with it the indices, goes by the bus.
        own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        own["CUDA_VISIBLE_DEVICES"] = _NO_GPU if place.gpu == "none" else str(place.gpu)
    if place.shared or isinstance(place.gpu, int):
        own.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if place.shared:
        own.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return own


class Gpus:
    """What NVIDIA's driver tells of the GPUs here. Any thread may read.

    Without a driver, or its Python library, there are none.
    nvml: the library, `pynvml`, or what stands in for it; left out, it is imported.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._lock = threading.Lock()
        self._nvml = _started(nvml)
        self._only: frozenset[int] | None = None
        self._read: tuple[float, list[Device]] | None = None
        self._troubled = False

    def narrow(self, indices: Iterable[int]) -> None:
        """From now on, tell of these alone."""
        with self._lock:
            self._only, self._read = frozenset(indices), None

    def read(self, now: float) -> list[Device]:
        """The GPUs, read at most READ_SECONDS ago; now: seconds of a steady clock."""
        with self._lock:
            if self._read is None or now - self._read[0] >= READ_SECONDS:
                self._read = now, [] if self._nvml is None else self._devices(self._nvml)
            return self._read[1]

    def _devices(self, nvml: Any) -> list[Device]:
        found: list[Device] = []
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self._tell(error)
            return []
        for index in range(count):
            if self._only is not None and index not in self._only:
                continue
            try:
                found.append(_device(nvml, index))
            except nvml.NVMLError as error:  # one that has fallen off the bus leaves the others
                self._tell(error)
        return found

    def _tell(self, error: Exception) -> None:
        if not self._troubled:
            log.warning("the driver does not tell of the GPUs: %s", error)
        self._troubled = True


def _started(nvml: Any) -> Any:
    """The library, ready; None if there is none, or no driver."""
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        log.info("no GPU is looked for: nvidia-ml-py is not installed")
        return None
    except nvml.NVMLError as error:
        log.info("no GPU: %s", error)
        return None
    return nvml


def _device(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    memory = _if_told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    use = _if_told(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    return Device(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        memory_total_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
        utilization_percent=None if use is None else use.gpu,
    )


def _if_told(nvml: Any, ask: Callable[[], _Told]) -> _Told | None:
    """What the driver answers; None where it does not know this of such a GPU, as of a part of one (MIG)."""
    try:
        return ask()
    except nvml.NVMLError_NotSupported:
        return None
