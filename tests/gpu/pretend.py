"""A machine without a GPU that behaves as if it had one, so that code for CUDA runs anywhere.

Every tensor stays on the CPU; those that a program puts on "cuda" are marked, by their storage. A
marked tensor may do what a CUDA tensor may do, and no more: it may not meet an unmarked one in an
operation, become a NumPy array, or be drawn with a CPU generator. What makes the host wait for a
real GPU is noted with the line of the program that asked for it (`waits`), and so is each transfer
(`transfers`). Memory is counted, has a peak, and can be bounded ("CUDA out of memory").

    with PretendGPU(capability=(7, 5), memory=15.6e9, devices=2) as gpu:
        ...  # torch.cuda.is_available() is True, and torch.device("cuda") can be used
    gpu.waits, gpu.transfers, gpu.peak

What it shows: devices, waits, transfers, memory, and every branch that asks for CUDA; autocast,
GradScaler, fused optimisers, DistributedDataParallel and SyncBatchNorm with real numbers, half
precision as tensor cores have it. What it does not: kernels (cuDNN, Triton, NCCL), streams and
their races, TF32, speed, fragmentation, CUDA's own lists of what autocast rounds (the CPU's are
used; for the operations of this project they are the same). PyTorch's modes hold for one thread:
what another thread does is not checked, but `pin_memory` works in all.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, distributed
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from helpers import workspace
from tests.gpu.kernels import run

aten = torch.ops.aten
# take the places to read or write from either device
INDEXED = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
# take tensors of two devices
COPIES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
# make a tensor of another's shape, and take a device
ALIKE = {
    aten.empty_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.rand_like.default,
    aten.randn_like.default,
}
# need a number, or a size, that the GPU has not computed yet
WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten._unique2.default: "unique",
    aten.is_nonzero.default: "bool",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
# functions of PyTorch that are shown the device as the program wrote it
UNTOUCHED = {Tensor.__repr__, Tensor.__format__, torch.device, torch._C._nn._parse_to}


class DeviceMismatch(RuntimeError):
    """What CUDA says where tensors of two devices meet."""


def tensors_in(*values: object) -> list[Tensor]:
    """All tensors in nested arguments."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def line_of_the_program(project: Path) -> str:
    """The innermost line of the project, or of a notebook's cell, that led here: file:line.

    The tests' own lines are passed over, and those of `workspace.send` for the line that sends.
    """
    frame = sys._getframe(1)
    while frame:
        path = frame.f_code.co_filename
        sends = frame.f_code is workspace.send.__code__
        of_others = "/tests/" in path or "/.venv" in path or not path.startswith(str(project))
        if "<cell" in path or not (sends or of_others):
            return f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def pin(tensor: Tensor) -> Tensor:
    """A copy that counts as page-locked; works in any thread."""
    copy = tensor.clone()
    copy.pretends_to_be_pinned = True
    return copy


class Marks:
    """Which storages lie on a pretend GPU, and how many bytes they are."""

    def __init__(self, limit: float | None):
        self.limit = limit
        self.bytes = 0
        self.peak = 0
        self.kept = {}  # address -> (weak reference, which keeps the address taken; GPU; bytes)

    def gpu_of(self, tensor: Tensor) -> int | None:
        """The number of the GPU that a tensor lies on; None: it lies on the CPU."""
        if type(tensor).__name__ == "FakeTensor":
            return None
        _, index, _ = self.kept.get(tensor.untyped_storage()._cdata, (None, None, 0))
        return index

    def put(self, tensor: Tensor, index: int) -> None:
        """Count a tensor as one of this GPU. Raises OutOfMemoryError where there is no room."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.kept:
            return
        size = storage.nbytes()
        if self.over(size):
            self.sweep()
        if self.over(size):
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU {index} has a "
                f"total capacity of {self.limit / 2**30:.2f} GiB (pretended)"
            )
        self.kept[storage._cdata] = (StorageWeakRef(storage), index, size)
        self.bytes += size
        if len(self.kept) % 64 == 0 or self.bytes > self.peak:
            self.sweep()
        self.peak = max(self.peak, self.bytes)

    def over(self, size: int) -> bool:
        return self.limit is not None and self.bytes + size > self.limit

    def sweep(self) -> None:
        """Forget the storages that are gone."""
        gone = [address for address, (reference, *_) in self.kept.items() if reference.expired()]
        for address in gone:
            self.bytes -= self.kept.pop(address)[2]


class Operations(TorchDispatchMode):
    """Sees each operation below autograd: checks devices, notes waits, marks results."""

    def __init__(self, gpu: "PretendGPU"):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu = self.gpu
        kwargs = kwargs or {}
        tensors = tensors_in(args, kwargs)
        gpus = [gpu.marks.gpu_of(tensor) for tensor in tensors]
        there = {index for index in gpus if index is not None}
        if there and func not in COPIES:
            self.check_devices(func, args, tensors, gpus)
            self.note_waits(func, args)
        if func is aten.copy_.default and (gpus[0] is None) != (gpus[-1] is None):
            way = "D2H" if gpus[0] is None else "H2D"
            non_blocking = bool(kwargs.get("non_blocking") or args[2:3] == (True,))
            gpu.note_transfer(way, tensors[1], non_blocking=non_blocking)
        result = run(func, args, kwargs) if there else func(*args, **kwargs)
        if func is not aten.copy_.default:  # whose destination stays where it was
            asked = not tensors or (func in ALIKE and kwargs.get("device") is not None)
            index = gpu.ambient if asked else min(there, default=None)
            if index is not None:
                for tensor in tensors_in(result):
                    if not any(tensor is given for given in tensors):
                        gpu.marks.put(tensor, index)
        return result

    def check_devices(self, func, args, tensors, gpus) -> None:
        """Raises DeviceMismatch where the tensors are not all of one device; numbers may be."""
        there = {index for index in gpus if index is not None}
        if func in INDEXED and self.gpu.marks.gpu_of(args[0]) is not None:
            written = tensors_in(args[2:3]) if "put" in str(func) else []
            stray = [t for t in written if self.gpu.marks.gpu_of(t) is None and t.dim()]
        else:
            pairs = zip(tensors, gpus, strict=True)
            stray = [tensor for tensor, index in pairs if index is None and tensor.dim()]
        if stray or len(there) > 1:
            other = "cpu" if stray else f"cuda:{max(there)}"
            raise DeviceMismatch(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:{min(there)} and {other}! ({func})"
            )

    def note_waits(self, func, args) -> None:
        what = WAITS.get(func)
        if func in INDEXED and self.gpu.marks.gpu_of(args[0]) is not None:
            for index in tensors_in(args[1]):
                if index.dtype in (torch.bool, torch.uint8):
                    what = "index by a mask"
                elif self.gpu.marks.gpu_of(index) is None and index.dim():
                    what = "index from the CPU, copied there"
        if what:
            self.gpu.note(what)


class Functions(TorchFunctionMode):
    """Sees each call of PyTorch's Python functions: gives "cuda" its meaning, answers `device`."""

    def __init__(self, gpu: "PretendGPU"):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu = self.gpu
        kwargs = dict(kwargs or {})
        first = args[0] if args and isinstance(args[0], Tensor) else None
        own = ANSWERS.get(func)
        if own is not None:
            return own(gpu, *args, **kwargs)
        index = None if first is None else gpu.marks.gpu_of(first)
        name = getattr(func, "__name__", "")
        if index is not None:
            self.refuse_and_note(name, index, args)
        if name == "__deepcopy__" and index is not None:  # copies a storage unseen
            with gpu.nothing_marked():
                copied = func(*args, **kwargs)
            gpu.marks.put(copied, index)
            return copied
        return self.call(func, name, args, kwargs)

    def refuse_and_note(self, name: str, index: int, args: tuple) -> None:
        """What a tensor on a GPU does not do, or makes the host wait for."""
        if name in ("numpy", "__array__"):
            raise TypeError(
                f"can't convert cuda:{index} device type tensor to numpy. Use Tensor.cpu() to copy "
                "the tensor to host memory first."
            )
        if name == "tolist":
            self.gpu.note("tolist")
        if name in ("__getitem__", "__setitem__"):
            places = args[1] if isinstance(args[1], tuple) else args[1:2]
            if any(isinstance(place, list | np.ndarray) for place in places):
                self.gpu.note("index from the CPU, copied there")

    def call(self, func: Callable, name: str, args: tuple, kwargs: dict) -> object:
        """The function, told "cpu" for "cuda"; what it makes is marked if it was to be there."""
        gpu = self.gpu
        wanted = []

        def on_cpu(value: object) -> object:
            is_device = isinstance(value, torch.device) and value.type == "cuda"
            if is_device or (isinstance(value, str) and value.split(":")[0] == "cuda"):
                wanted.append(gpu.index_of(torch.device(value)))
                return torch.device("cpu")
            return value

        if func not in UNTOUCHED:
            args, kwargs = tree_map(on_cpu, args), tree_map(on_cpu, kwargs)
        if wanted and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        given = [gpu.marks.gpu_of(tensor) for tensor in tensors_in(args, kwargs)]
        given = [index for index in given if index is not None]
        ambient = (wanted or given or [None])[0]
        if not wanted and kwargs.get("device") is not None:
            ambient = None  # the CPU was asked for
        with gpu.making_on(ambient):
            result = func(*args, **kwargs)
        if wanted:
            if func is torch.tensor or name in ("as_tensor", "new_tensor"):
                gpu.note_transfer("H2D", result, non_blocking=False)
            for tensor in tensors_in(result):
                gpu.marks.put(tensor, wanted[0])
        return result


class PretendGPU(contextlib.ExitStack):
    """Pretend GPUs, for as long as the block lasts, in this thread.

    Args:
        capability: (7, 5) is a T4, (8, 0) an A100, (9, 0) an H100.
        memory: bytes that are free at the start.
        devices: how many GPUs.
        bounded: what is put there beyond `memory` raises torch.OutOfMemoryError.
        project: whose lines `waits` and `transfers` name.

    Attributes:
        waits: how often the host waited, by (line, what for).
        transfers: how often, by (line, "H2D" or "D2H", "pinned" or "pageable", "waits" or
            "non_blocking", bytes).
        forbidden: a wait raises, as under torch.cuda.set_sync_debug_mode("error").
    """

    def __init__(
        self,
        *,
        project: Path,
        capability: tuple[int, int] = (9, 0),
        memory: float = 80e9,
        devices: int = 1,
        bounded: bool = False,
    ):
        super().__init__()
        self.project = project
        self.capability = capability
        self.memory = memory
        self.devices = devices
        self.marks = Marks(memory if bounded else None)
        self.ambient = None  # where what is made of nothing lies: a GPU's number, None the CPU
        self.current = 0
        self.backend = None  # of the processes, as the program named it
        self.waits = Counter()
        self.transfers = Counter()
        self.forbidden = False

    @property
    def peak(self) -> int:
        """The most bytes that lay there at once."""
        return self.marks.peak

    def held(self) -> int:
        """Bytes that lie there now."""
        self.marks.sweep()
        return self.marks.bytes

    # what the modes ask

    def index_of(self, device: torch.device) -> int:
        index = self.current if device.index is None else device.index
        if index >= self.devices:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({index} of {self.devices})")
        return index

    def device_of(self, tensor: Tensor) -> torch.device:
        index = self.marks.gpu_of(tensor)
        with torch._C.DisableTorchFunction():
            return tensor.device if index is None else torch.device("cuda", index)

    def note(self, what: str) -> None:
        """The host waits. Raises RuntimeError where that is forbidden."""
        line = line_of_the_program(self.project)
        self.waits[line, what] += 1
        if self.forbidden:
            raise RuntimeError(f"called a synchronizing CUDA operation: {what} at {line}")

    def note_transfer(self, way: str, tensor: Tensor, *, non_blocking: bool) -> None:
        kind = "pinned" if getattr(tensor, "pretends_to_be_pinned", False) else "pageable"
        waits = "non_blocking" if non_blocking else "waits"
        line = line_of_the_program(self.project)
        self.transfers[line, way, kind, waits, tensor.numel() * tensor.element_size()] += 1
        if way == "D2H" or not non_blocking:
            self.note(f"{way} copy")

    def move(self, tensor: Tensor, *args, copy: bool = False, **kwargs) -> Tensor:
        """Tensor.to, with devices that are pretended."""
        if (args and isinstance(args[0], Tensor)) or "other" in kwargs:
            other = kwargs.pop("other", args[0] if args else None)
            args = (self.device_of(other), other.dtype, *args[1:])
        with torch._C.DisableTorchFunction():
            if len(args) > 3 or (len(args) == 3 and isinstance(args[0], torch.dtype)):
                copy, args = args[-1], args[:-1]
            device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        dtype = dtype or tensor.dtype
        options = {} if layout is None else {"memory_format": layout}
        if device is not None and device.type not in ("cuda", "cpu"):  # "meta", say
            return Tensor.to(tensor, device, dtype, non_blocking, copy, **options)
        index = target = self.marks.gpu_of(tensor)
        if device is not None:
            target = self.index_of(device) if device.type == "cuda" else None
        if target == index:
            with self.making_on(None):
                return Tensor.to(tensor, dtype, non_blocking, copy, **options)
        way = "D2H" if target is None else "H2D"
        self.note_transfer(way, tensor, non_blocking=non_blocking)
        with self.making_on(None), self.nothing_marked():
            moved = Tensor.to(tensor, dtype, False, True, **options)  # autograd sees it
        if target is not None:
            self.marks.put(moved, target)
        return moved

    @contextlib.contextmanager
    def making_on(self, index: int | None) -> Iterator[None]:
        """What is made of nothing lies on this GPU; None: on the CPU."""
        before, self.ambient = self.ambient, index
        try:
            yield
        finally:
            self.ambient = before

    @contextlib.contextmanager
    def nothing_marked(self) -> Iterator[None]:
        """No tensor counts as one of a GPU, and none becomes one."""
        with mock.patch.object(self.marks, "gpu_of", lambda tensor: None):
            yield

    @contextlib.contextmanager
    def without_waits(self) -> Iterator[None]:
        """A wait raises RuntimeError."""
        self.forbidden = True
        try:
            yield
        finally:
            self.forbidden = False

    # entering

    def __enter__(self) -> "PretendGPU":
        super().__enter__()
        for target, replacements in self.replacements().items():
            for name, replacement in replacements.items():
                self.enter_context(mock.patch.object(target, name, replacement))
        self.enter_context(Operations(self))
        self.enter_context(Functions(self))
        return self

    def replacements(self) -> dict[object, dict[str, Callable]]:
        """What PyTorch says of its GPUs, in place of what it says here."""

        def synchronize(*_):
            self.note("synchronize")

        def set_device(device):
            self.current = self.index_of(torch.device(device))

        def reset_peak(device=None):
            self.marks.peak = self.held()

        return {
            torch.cuda: {
                "is_available": lambda: True,
                "is_initialized": lambda: True,
                "device_count": lambda: self.devices,
                "current_device": lambda: self.current,
                "set_device": set_device,
                "get_device_capability": lambda device=None: self.capability,
                "get_device_name": lambda device=None: "pretended GPU",
                "mem_get_info": lambda device=None: self.free(),
                "synchronize": synchronize,
                "max_memory_allocated": lambda device=None: self.peak,
                "memory_allocated": lambda device=None: self.held(),
                "reset_peak_memory_stats": reset_peak,
                "empty_cache": lambda: None,
                "set_sync_debug_mode": self.set_sync_debug_mode,
                "is_bf16_supported": self.bf16_supported,
                "get_rng_state": lambda device=None: torch.get_rng_state(),
                "set_rng_state": lambda *_: None,
                "is_current_stream_capturing": lambda: False,
                "manual_seed_all": lambda seed: None,
            },
            torch.accelerator: {
                "synchronize": synchronize,
                "current_accelerator": lambda *_, **__: torch.device("cuda"),
                "device_count": lambda: self.devices,
                "is_available": lambda: True,
                "current_device_index": lambda: self.current,
                "current_stream": lambda device=None: mock.Mock(is_capturing=lambda: False),
            },
            torch.cuda.amp.common: {"amp_definitely_not_available": lambda: False},
            Tensor: {"pin_memory": pin},
            sys.modules["torch.optim.optimizer"]: {
                "_group_tensors_by_device_and_dtype": self.grouped
            },
            torch.amp.autocast_mode.autocast: {"__init__": self.autocast_on_cpu()},
            distributed: {
                "init_process_group": self.with_gloo(distributed.init_process_group),
                "get_backend": self.named(distributed.get_backend),
            },
            # where buckets are made, in C++
            DistributedDataParallel: {
                "__init__": self.made_there(DistributedDataParallel.__init__),
                "_pre_forward": self.made_there(DistributedDataParallel._pre_forward),
            },
        }

    def set_sync_debug_mode(self, mode: str) -> None:
        """ "error": a wait raises; "default": it is noted."""
        self.forbidden = mode == "error"

    def bf16_supported(self, including_emulation: bool = True) -> bool:
        """As PyTorch has it: an older GPU "supports" what it emulates."""
        return including_emulation or self.capability[0] >= 8

    def free(self) -> tuple[int, int]:
        """Bytes free, and all."""
        return int(self.memory - self.held()), int(self.memory)

    def grouped(self, lists: list, with_indices: bool = False) -> dict:
        """Optimisers sort their tensors by device: here by the marks'."""
        with torch._C.DisableTorchFunction():
            groups = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)
        by_device = {}
        for (_, kind), group in groups.items():
            first = next(tensor for tensor in group[0][0] if tensor is not None)
            by_device[self.device_of(first), kind] = group
        return by_device

    def autocast_on_cpu(self) -> Callable:
        start = torch.amp.autocast_mode.autocast.__init__

        def inside(mode, device_type, dtype=None, enabled=True, cache_enabled=None):
            if device_type == "cuda":
                device_type, dtype = "cpu", dtype or torch.float16
            start(mode, device_type, dtype, enabled, cache_enabled)

        return inside

    def with_gloo(self, begin: Callable) -> Callable:
        """Start the processes' group with gloo for nccl."""

        def inside(backend=None, *arguments, **options):
            options.pop("device_id", None)
            self.backend = backend
            begin("gloo" if backend == "nccl" else backend, *arguments, **options)

        return inside

    def named(self, named: Callable) -> Callable:
        return lambda group=None: self.backend or named(group)

    def made_there(self, function: Callable) -> Callable:
        """The function; whatever it makes lies on the current GPU."""

        def inside(*arguments, **options):
            with self.making_on(self.current):
                return function(*arguments, **options)

        return inside


def to_cpu(gpu: PretendGPU, tensor: Tensor, **kwargs) -> Tensor:
    return gpu.move(tensor, torch.device("cpu"), **kwargs)


def to_cuda(gpu: PretendGPU, tensor: Tensor, *args, **kwargs) -> Tensor:
    return gpu.move(tensor, torch.device("cuda", *args[:1]), **kwargs)


def get_device(gpu: PretendGPU, tensor: Tensor) -> int:
    index = gpu.marks.gpu_of(tensor)
    return -1 if index is None else index


# functions of PyTorch that the pretend GPU answers itself
ANSWERS = {
    Tensor.device.__get__: PretendGPU.device_of,
    Tensor.is_cuda.__get__: lambda gpu, tensor: gpu.marks.gpu_of(tensor) is not None,
    Tensor.is_cpu.__get__: lambda gpu, tensor: gpu.marks.gpu_of(tensor) is None,
    Tensor.get_device: get_device,
    Tensor.to: PretendGPU.move,
    Tensor.cpu: to_cpu,
    Tensor.cuda: to_cuda,
    Tensor.pin_memory: lambda gpu, tensor: pin(tensor),
}
