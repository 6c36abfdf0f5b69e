"""Device, precision and memory: what this machine computes on, through accelerate."""

import resource
import sys

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

MB = 1e6
PROCESS_STATUS = "/proc/self/status"  # Linux


def cpu_is_fast_at_bf16():
    """Whether the CPU multiplies bf16 matrices in hardware (AMX); elsewhere bf16 saves memory only."""
    return torch.backends.cpu.get_cpu_capability() == "AMX" or _has_amx()


def _has_amx():
    try:
        with open("/proc/cpuinfo") as file:
            return any(line.startswith("flags") and " amx_bf16" in line for line in file)
    except OSError:
        return False


def resolve_precision(precision, profile="demo"):
    """accelerate's name of a precision.

    ``auto`` is bf16 or fp16 on a GPU; on a CPU it is float32, but bf16 for the paper's model where
    the CPU is fast at it: the demo's layers are too small to gain by it.
    """
    if precision == "auto":
        if torch.cuda.is_available():
            return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        return "bf16" if profile == "paper" and cpu_is_fast_at_bf16() else "no"
    return "no" if precision == "float32" else precision


def make_accelerator(precision, profile="demo"):
    """accelerate's view of device and precision; a notebook may change its precision and go on."""
    AcceleratorState._reset_state(reset_partial_state=True)
    only_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    # LayerDrop leaves out whole layers: not every weight has a gradient in every step
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision=resolve_precision(precision, profile), cpu=only_cpu, kwargs_handlers=[parallel]
    )


def peak_memory(device):
    """Most memory in use so far, in bytes: of the GPU, or of this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # not getrusage: on Linux a new program inherits the peak of the process that started it
        with open(PROCESS_STATUS) as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def is_out_of_memory(error):
    """Whether an exception says that memory is exhausted, on a GPU or a CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
