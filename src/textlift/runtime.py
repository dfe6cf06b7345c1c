"""What the machine offers and what is taken of it: device, precision, threads, seeds, versions.

Every automatic choice comes with its reason. Does not know recipes or models.
"""

import logging
import math
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textlift.errors import RecipeError
from textlift.memory import keep_memory

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "textlift",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "scikit-learn",
    "scipy",
    "numpy",
    "pyarrow",
    "pydantic",
    "sentence-transformers",
    "bitsandbytes",
    "accelerate",
)


ONEDNN = "onednn"
# oneDNN, and torch's layer above it, each keep a compiled kernel of 0.6 MB for every number of rows ever multiplied, up
# to 1,024 unless told; texts of all lengths would fill a gigabyte. A step needs 12 of them, in bf16 with LoRA on all
# layers over 64: where they do not fit, each is compiled again at every step.
_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
_CACHED_KERNELS, _CACHED_KERNELS_FAST = "64", "128"
_WINS_BY = 1.3  # a start-up measurement below this could turn out otherwise the next time


@dataclass(frozen=True)
class Runtime:
    """Where tensors live, in which arithmetic the forward pass runs, and whose matrix product linear layers use."""

    device: str
    precision: str
    threads: int
    reasons: tuple[str, ...]
    linear_kernel: str = "torch"

    def autocast(self) -> "torch.autocast":
        """The context of every forward pass; weights that train stay fp32 outside it."""
        import torch

        kind = self.device.split(":")[0]
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def choose_runtime(
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    linear_kernel: str = "auto",
    fast: bool = False,
) -> Runtime:
    """The device, precision, threads and linear kernel of a run, each with its reason; sets torch's thread count.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.
        threads: Of torch; None for all cores, or what OMP_NUM_THREADS says.
        linear_kernel: auto, torch or onednn.
        fast: Whether a training with `fast` is to come: more compiled kernels are kept. The first call in a process
            decides.

    Raises:
        RecipeError: The device is not known or not on this machine, or cannot do bf16; or the kernel is not there.
    """
    for cache in _KERNEL_CACHES:
        os.environ.setdefault(cache, _CACHED_KERNELS_FAST if fast else _CACHED_KERNELS)
    chosen, why_device = _choose_device(device)
    arithmetic, why_precision = _choose_precision(precision, chosen)
    count, why_threads = _choose_threads(threads)
    _set_threads(count)
    if chosen == "cpu":
        keep_memory()
    kernel, why_kernel = _choose_linear_kernel(linear_kernel, device=chosen, precision=arithmetic)
    return Runtime(chosen, arithmetic, count, (why_device, why_precision, why_threads, why_kernel), kernel)


def _choose_device(device: str) -> tuple[str, str]:
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda", f"device cuda: {torch.cuda.get_device_name()} is there"
        if torch.backends.mps.is_available():
            return "mps", "device mps: the Apple GPU is there"
        return "cpu", "device cpu: no GPU that torch can use"
    kind, _, index = device.partition(":")
    if not re.fullmatch(r"(cpu|cuda|mps)(:[0-9]+)?", device):
        raise RecipeError(f"runtime.device must be auto, cpu, cuda, cuda:N or mps; found {device!r}.")
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= present:
        raise RecipeError(
            f"runtime.device {device!r} must be on this machine; torch {torch.__version__} sees {present} of that kind."
            "\nPass --device cpu, or install a torch built for your GPU."
        )
    named = kind if kind != "cuda" else device  # of the other kinds there is one
    return named, f"device {named}: as asked"


def _choose_precision(precision: str, device: str) -> tuple[str, str]:
    import torch

    can_bf16 = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    if precision == "auto":
        if can_bf16:
            return "bf16", "precision bf16: the GPU computes in it; weights that train stay fp32"
        return "fp32", "precision fp32: exact, and this device gains no speed from less"
    return precision, f"precision {precision}: as asked"


def _choose_threads(threads: int | None) -> tuple[int, str]:
    if threads is not None:
        return threads, f"threads {threads}: as asked"
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told) > 0:
        return int(told), f"threads {told}: OMP_NUM_THREADS says so"
    cores = available_cores()
    return cores, f"threads {cores}: all cores this process may use"


def _set_threads(count: int) -> None:
    """Have torch use that many threads.

    torch.set_num_threads also tells MKL, which then starts threads of its own inside those of torch: attention takes
    twice as long, on two cores longer than on one. So OpenMP is told alone, where that is what torch asks.
    """
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if torch.get_num_threads() != count:
        threadpool_limits(limits=count, user_api="openmp")
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _choose_linear_kernel(asked: str, *, device: str, precision: str) -> tuple[str, str]:
    import torch

    product = onednn_product()
    if asked == ONEDNN and (product is None or device != "cpu" or precision != "fp32"):
        raise RecipeError(
            f"runtime.linear_kernel {ONEDNN} must meet fp32 on a CPU and a torch with oneDNN; found {precision} on "
            f"{device}{'' if product else ', and no oneDNN'}.\nLeave it at auto."
        )
    if asked != "auto":
        return asked, f"linear kernel {asked}: as asked"
    if product is None or device != "cpu" or precision != "fp32":
        return "torch", "linear kernel torch: oneDNN's product serves fp32 on a CPU alone"
    gain = _onednn_gain(torch.get_num_threads())
    chosen = ONEDNN if gain >= _WINS_BY else "torch"
    return chosen, f"linear kernel {chosen}: oneDNN's matrix product took 1/{gain:.1f} of the time of torch's here"


def onednn_product() -> "Callable[..., torch.Tensor] | None":
    """The fp32 product x W' + b of oneDNN, as (x, W, b, "none", [], ""), or None where torch is built without it."""
    import torch

    try:
        return torch.ops.mkldnn._linear_pointwise.default  # what torch.compile puts into its graphs
    except AttributeError:
        return None


@lru_cache
def _onednn_gain(threads: int) -> float:
    """Time of torch's product over that of oneDNN, best of interleaved tries at one step's size; about 30 ms."""
    import torch

    onednn = onednn_product()
    assert onednn is not None
    x, weight, bias = torch.ones(128 * threads, 384), torch.ones(384, 384), torch.ones(384)
    best = [math.inf, math.inf]
    with torch.inference_mode():
        for turn in range(24):
            began = time.perf_counter()
            for _ in range(2):
                onednn(x, weight, bias, "none", [], "") if turn % 2 else torch.nn.functional.linear(x, weight, bias)
            best[turn % 2] = min(best[turn % 2], time.perf_counter() - began)
    return best[0] / best[1]


def available_cores() -> int:
    """Cores that this process may run on (not those of the whole machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_seed(seed: int) -> None:
    """Seed torch on every device; the one place where global random state is set."""
    import torch

    torch.manual_seed(seed)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers, peft and huggingface_hub from drawing bars or warning of what is checked here anyway.

    peft imports bitsandbytes where it is installed; what that says of a kernel that it misses is not shown again.
    """
    import transformers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_worth_telling)
    log: Any = transformers.utils.logging
    bars = are_progress_bars_disabled()
    level, drew = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if drew:
            log.enable_progress_bar()
        if not bars:
            enable_progress_bars()


def _is_worth_telling(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in str(record.msg)  # a kernel from the Hub, for a product that is not used here


def versions() -> dict[str, str]:
    """Installed version of each package that a result depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is otherwise in one environment than in another and can move the last digits of a result, in words."""
    names = ("device", "precision", "threads", "linear_kernel", "platform", "processor", "python", "gpu", *PACKAGES)
    return [
        f"{name.replace('_', ' ')} {now.get(name, 'none')} in place of {before.get(name, 'none')}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def processor() -> str:
    """The name of the processor, where the system tells it; rounding may differ between two."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(errors="replace").splitlines() if told.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def environment(runtime: Runtime | None = None) -> dict[str, Any]:
    """What a reader needs to know of the machine and the versions, with no name of a person or host."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": available_cores(),
        **versions(),
    }
    if runtime is not None:
        facts |= {"device": runtime.device, "precision": runtime.precision, "threads": runtime.threads}
        facts["linear_kernel"] = runtime.linear_kernel
        facts["reasons"] = list(runtime.reasons)
        if runtime.device.startswith("cuda"):
            import torch

            facts["gpu"] = torch.cuda.get_device_name(runtime.device)
    return facts
