"""What stands in for `pynvml`, the library of NVIDIA's driver."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As `pynvml` has it."""


class NotSupported(NVMLError):
    """As `pynvml` has it."""


def nvml(*names: str, driver: bool = True, lost: int | None = None, partitioned: bool = False) -> Any:
    """What stands in for `pynvml` on a machine with these GPUs, of which one may be lost."""
    reads: list[int] = []

    def start() -> None:
        if not driver:
            raise NVMLError("NVML Shared Library Not Found")

    def handle(index: int) -> int:
        if index == lost:
            raise NVMLError("GPU is lost")
        reads.append(index)
        return index

    def use(index: int) -> Any:
        if partitioned:
            raise NotSupported("Not Supported")
        return SimpleNamespace(gpu=10 * index + 5, memory=1)

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        nvmlInit=start,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetName=lambda index: names[index],
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(total=143 * 2**30, free=2**30, used=(index + 1) * 2**30),
        nvmlDeviceGetUtilizationRates=use,
        reads=reads,
    )
