"""Automatic choices with their reasons, quiet libraries, memory and versions."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub.utils import are_progress_bars_disabled

from textlift import runtime
from textlift.errors import RecipeError
from textlift.memory import PeakMemory, is_out_of_memory
from textlift.runtime import available_cores, choose_runtime, environment, quiet_libraries, set_seed, versions


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_full_memory_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_every_choice_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    chosen = choose_runtime()
    assert (chosen.device, chosen.precision, chosen.threads) == ("cpu", "fp32", available_cores())
    assert [reason.split(":")[0] for reason in chosen.reasons] == [
        "device cpu",
        "precision fp32",
        f"threads {available_cores()}",
        f"linear kernel {chosen.linear_kernel}",
    ]
    assert torch.get_num_threads() == available_cores()


def test_the_number_of_threads_that_the_environment_names_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chosen = choose_runtime(device="cpu")
    assert chosen.threads == 1
    assert chosen.reasons[2] == "threads 1: OMP_NUM_THREADS says so"


def test_what_is_asked_for_is_taken() -> None:
    chosen = choose_runtime(device="cpu", precision="bf16", threads=1, linear_kernel="torch")
    assert (chosen.device, chosen.precision, chosen.threads) == ("cpu", "bf16", 1)
    assert all(reason.endswith("as asked") for reason in chosen.reasons)
    with chosen.autocast():
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2)).dtype == torch.bfloat16


def test_the_first_cpu_is_the_cpu() -> None:
    chosen = choose_runtime(device="cpu:0", linear_kernel="torch")
    assert (chosen.device, chosen.reasons[0]) == ("cpu", "device cpu: as asked")


@pytest.mark.parametrize(("fast", "more"), [(False, False), (True, True)])
def test_a_fast_training_keeps_more_compiled_kernels(monkeypatch: pytest.MonkeyPatch, fast: bool, more: bool) -> None:
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    choose_runtime(device="cpu", linear_kernel="torch", fast=fast)
    assert (int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) > 64) == more


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu", "cpu:", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(RecipeError, match=r"runtime.device must be auto, cpu, cuda, cuda:N or mps"):
        choose_runtime(device=device)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RecipeError, match=r"'cuda:3' must be on this machine; .* sees 1 of that kind") as caught:
        choose_runtime(device="cuda:3")
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(("gain", "kernel"), [(2.3, "onednn"), (1.1, "torch"), (0.4, "torch")])
def test_onednn_is_taken_only_where_it_clearly_wins(monkeypatch: pytest.MonkeyPatch, gain: float, kernel: str) -> None:
    monkeypatch.setattr(runtime, "_onednn_gain", lambda threads: gain)
    monkeypatch.setattr(runtime, "onednn_product", object)
    chosen = choose_runtime(device="cpu")
    assert chosen.linear_kernel == kernel
    assert f"linear kernel {kernel}: " in chosen.reasons[-1]


def test_a_torch_without_onednn_keeps_its_own_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "onednn_product", lambda: None)
    assert choose_runtime(device="cpu").linear_kernel == "torch"
    with pytest.raises(RecipeError, match=r"runtime\.linear_kernel onednn must meet fp32 on a CPU"):
        choose_runtime(device="cpu", linear_kernel="onednn")


def test_bf16_keeps_the_product_of_torch() -> None:
    assert choose_runtime(device="cpu", precision="bf16").linear_kernel == "torch"


def test_the_start_up_measurement_gives_a_ratio() -> None:
    if runtime.onednn_product() is None:
        pytest.skip("torch is built without oneDNN")
    assert runtime._onednn_gain(1) > 0


def test_a_seed_repeats_what_torch_draws() -> None:
    set_seed(3)
    first = torch.rand(4)
    set_seed(3)
    assert torch.equal(first, torch.rand(4))


def test_libraries_are_quiet_inside_and_as_before_outside() -> None:
    log = transformers.utils.logging
    before = (log.get_verbosity(), log.is_progress_bar_enabled(), are_progress_bars_disabled())
    with quiet_libraries():
        warnings.warn("of a library", FutureWarning, stacklevel=1)
        assert log.get_verbosity() == log.ERROR
        assert are_progress_bars_disabled()
        with quiet_libraries():
            pass
        assert are_progress_bars_disabled()
    assert (log.get_verbosity(), log.is_progress_bar_enabled(), are_progress_bars_disabled()) == before
    with pytest.warns(FutureWarning, match="of a library"):
        warnings.warn("of a library", FutureWarning, stacklevel=1)


def test_libraries_are_as_before_after_an_error() -> None:
    level = transformers.utils.logging.get_verbosity()
    with pytest.raises(KeyError), quiet_libraries():
        raise KeyError
    assert transformers.utils.logging.get_verbosity() == level


def test_peak_memory_sees_what_was_held_in_between() -> None:
    memory = PeakMemory("cpu")
    before = memory.bytes()
    held = torch.ones(20_000_000)
    after = memory.bytes()
    assert before is not None
    assert after is not None
    assert after - before > 40_000_000
    assert held.numel() == 20_000_000


def test_versions_name_only_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "PACKAGES", ("torch", "no-such-package-of-anyone"))
    assert versions() == {"torch": torch.__version__.split("+")[0]} or set(versions()) == {"torch"}


def test_the_environment_names_no_person_or_host() -> None:
    import getpass
    import socket

    facts = environment(choose_runtime(device="cpu", threads=1))
    assert {"python", "platform", "cores", "torch", "device", "precision", "threads", "reasons"} <= set(facts)
    told = str(facts)
    assert socket.gethostname() not in told
    assert f"/{getpass.getuser()}" not in told


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux begins a new high-water mark")
def test_peak_memory_does_not_carry_what_was_freed_before() -> None:
    pieces = [torch.ones(25_000) for _ in range(2_000)]  # 200 MB in pieces that the heap keeps
    held = PeakMemory("cpu").bytes()
    last = pieces[-1]
    del pieces
    freed = PeakMemory("cpu").bytes()
    assert held is not None
    assert freed is not None
    assert held - freed > 100e6
    assert len(last) == 25_000
