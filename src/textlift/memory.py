"""Memory of this process and of a GPU: what is free, what is held, the largest so far, and what the heap keeps.

Does not know models or training.
"""

import ctypes
import gc
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST_MMAP_THRESHOLD, _NEVER = 32 << 20, 2**31 - 1
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def available_memory(device: str) -> int | None:
    """Bytes that this process could still take; None where the system does not tell."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    told = Path("/proc/meminfo")
    if not told.is_file():
        return None
    lines = dict(line.split(":", 1) for line in told.read_text().splitlines() if ":" in line)
    system = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return system if limit is None or used is None else max(0, min(system, limit - used))


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def resident_memory(device: str) -> int | None:
    """Bytes that this process holds now; on a GPU those allocated there. None where the system does not tell."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.memory_allocated(device))
    return _status_bytes("VmRSS")


def keep_memory() -> None:
    """Keep freed memory in the heap of glibc, to be used again; elsewhere nothing happens.

    Else each training step gets its pages from the system anew, and the system clears them: up to a tenth of the time.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    set_option(_M_TRIM_THRESHOLD, _NEVER)


def give_back_memory() -> None:
    """Let the system have what this process has freed; on systems other than Linux with glibc nothing happens."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    trim(0)


class PeakMemory:
    """The largest resident memory between start and `bytes()`; on a GPU the largest allocation there."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._on_gpu = device.startswith("cuda")
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            return
        give_back_memory()  # else the mark would begin at what others have left in the heap
        marks = Path("/proc/self/clear_refs")
        if marks.exists():
            try:
                marks.write_text("5")  # Linux: begin a new high-water mark (proc(5))
            except OSError:  # not permitted here: the mark of the whole process is told instead
                return

    def bytes(self) -> int | None:
        """Bytes, or None where the system does not tell."""
        if self._on_gpu:
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        return _resident_high_water()


def _resident_high_water() -> int | None:
    told = _status_bytes("VmHWM")
    if told is not None:
        return told
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(name: str) -> int | None:
    """A size that Linux tells of this process (proc(5))."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    sizes = (int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    return next(sizes, None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch says that memory ran out; on the CPU torch raises a plain RuntimeError."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
