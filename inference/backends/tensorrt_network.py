"""Networks run by TensorRT through onnxruntime, on NVIDIA GPUs with the extra `tensorrt`. Never run on a GPU.

onnxruntime's provider, not torch-tensorrt: its sessions run on a CPU, too, which is how this is tested; it takes the
ONNX files that `viseme weights convert` writes anyway; and it does not tie torch to one version.

TensorRT builds an engine for one GPU in minutes. Engines are kept in the folder of compiled networks; they are as good
as code, so a folder that other users own or can write to is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference.atomic_write import atomic_file
from inference.backends.compiled_cache import check_trusted, locked, make_private, prune
from inference.backends.device import TENSORRT, Device, driver_version

if TYPE_CHECKING:
    import onnxruntime as ort
    from torch import nn

logger = logging.getLogger("viseme.backends")
Array = npt.NDArray[Any]
PROVIDER, FALLBACK_PROVIDER = "TensorrtExecutionProvider", "CUDAExecutionProvider"
MEMORY = "cuda"  # that a session writes its outputs to
FOLDER = "tensorrt"  # in the folder of compiled networks
MODEL = "model.onnx"
PACKAGES = ("onnx", "onnxruntime", "tensorrt")  # tensorrt loads its libraries, which onnxruntime then finds
MAX_ENGINE_BYTES = 4 << 30  # of all engines
BUILD_TIMEOUT_S = 900.0  # to wait for another process that builds the same engine
KEY_LENGTH = 16  # hex digits


class EngineUnavailable(Exception):
    """TensorRT cannot run a network here; the message is the reason."""


@dataclass(frozen=True)
class TracedNetwork:
    """A module that TensorRT is to run.

    make: makes it, in evaluation mode. name: with the sizes, whatever else changes its graph. arrays: its weights.
    inputs: by name, an example of each with a batch of 1. outputs: their names. max_batch: of one call.
    """

    make: Callable[[], nn.Module]
    name: str
    arrays: Mapping[str, Array]
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    max_batch: int


class OnnxNetwork:
    """An onnxruntime session: call it with one array per input, get one array per output. Any thread may call it."""

    def __init__(self, session: ort.InferenceSession, max_batch: int, memory: str = "cpu") -> None:
        """Wrap a session. memory: where its outputs are written, cpu or cuda."""
        self._session, self._max_batch, self._memory = session, max_batch, memory
        self._inputs = [one.name for one in session.get_inputs()]
        self._outputs = [one.name for one in session.get_outputs()]

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """Run the network. inputs: (n, ...) each, of any n: an engine has a largest batch. Returns: (n, ...) each."""
        starts = range(0, len(inputs[0]), self._max_batch)
        batches = [self._run([one[i : i + self._max_batch] for one in inputs]) for i in starts]
        return batches[0] if len(batches) == 1 else [np.concatenate(each) for each in zip(*batches, strict=True)]

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        binding = self._session.io_binding()
        for name, array in zip(self._inputs, inputs, strict=True):
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._outputs:
            binding.bind_output(name, self._memory)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


def try_tensorrt(network: TracedNetwork, device: Device, compiled: Path | None) -> OnnxNetwork | None:
    """Return a network run by TensorRT; None, after one line in the log, if it cannot run here.

    compiled: folder of compiled networks; without one, or if it cannot be used, the engine is built at each start.
    """
    try:
        check_available(device)
        return build(network, device, compiled)
    except EngineUnavailable as err:
        warn_once(str(err))
        return None


@cache
def warn_once(reason: str) -> None:
    logger.warning("TensorRT is not used: %s; networks run as without VISEME_ENGINE=%s", reason, TENSORRT)


def check_available(device: Device) -> None:
    """Raise EngineUnavailable if there is no GPU, or a package is missing."""
    if device.name != "cuda":
        raise EngineUnavailable(f"it needs an NVIDIA GPU, and the device is {device.name}")
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as err:  # OSError: a library that it loads is missing
            raise EngineUnavailable(f"{name} cannot be imported ({err}): pip install 'viseme[tensorrt]'") from err
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        raise EngineUnavailable(
            f"onnxruntime {onnxruntime.__version__} was built without it: pip uninstall onnxruntime, then "
            "pip install --force-reinstall 'viseme[tensorrt]'"
        )


def build(network: TracedNetwork, device: Device, compiled: Path | None) -> OnnxNetwork:
    """Build the engine, or load it from the folder of compiled networks. Raises: EngineUnavailable."""
    index = current_gpu()
    with engine_folder(compiled, engine_key(network, device, describe_runtime(index))) as (folder, is_kept):
        model = folder / MODEL
        if not model.is_file():
            export(network, model)
        options = provider_options(network, device, folder if is_kept else None, index)
        session = open_session(model, [(PROVIDER, options), (FALLBACK_PROVIDER, {"device_id": index})])
    if compiled is not None:
        prune(compiled / FOLDER, MAX_ENGINE_BYTES)
    return OnnxNetwork(session, network.max_batch, MEMORY)


def current_gpu() -> int:
    """Return the index of the GPU that torch uses."""
    import torch

    return torch.cuda.current_device()


def export(network: TracedNetwork, path: Path) -> None:
    """Write the network as ONNX, with a batch of any size."""
    import torch

    from inference.backends.onnx_trace import trace_onnx

    axes = {name: {0: "batch"} for name in (*network.inputs, *network.outputs)}
    examples = tuple(torch.from_numpy(one) for one in network.inputs.values())
    with atomic_file(path) as partial:
        trace_onnx(network.make(), examples, tuple(network.inputs), network.outputs, axes, partial)


def open_session(model: Path, providers: Sequence[tuple[str, Mapping[str, Any]]]) -> ort.InferenceSession:
    """Open a session on the first provider. Raises: EngineUnavailable if onnxruntime cannot, or takes another one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        # Without onnxruntime's own fallback, which prints to stdout.
        session = onnxruntime.InferenceSession(
            model, options, [name for name, _ in providers], [dict(one) for _, one in providers], enable_fallback=0
        )
    except Exception as err:  # onnxruntime's errors have no other class in common
        raise EngineUnavailable(str(err).strip().partition("\n")[0]) from err
    wanted, found = providers[0][0], session.get_providers()
    if wanted not in found:
        raise EngineUnavailable(f"onnxruntime could not start it, only {', '.join(found)}; see its error above")
    return session


def provider_options(network: TracedNetwork, device: Device, folder: Path | None, index: int) -> dict[str, Any]:
    """Return the options of TensorRT's provider. folder: of the engine, None to keep none. index: of the GPU."""
    kept = {} if folder is None else {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}
    largest = shapes_of(network, network.max_batch)
    return {
        "device_id": index,
        "trt_fp16_enable": device.precision == "f16",
        "trt_bf16_enable": device.precision == "bf16",
        "trt_engine_cache_enable": folder is not None,
        "trt_timing_cache_enable": folder is not None,
        **kept,
        # With them the engine is built when the session is opened, once for all batches.
        "trt_profile_min_shapes": shapes_of(network, 1),
        "trt_profile_opt_shapes": largest,
        "trt_profile_max_shapes": largest,
    }


def shapes_of(network: TracedNetwork, n_batch: int) -> str:
    """Return the shapes of the inputs as TensorRT's provider reads them: audio:4x1x80x16,face:4x6x96x96."""
    shapes = {name: (n_batch, *one.shape[1:]) for name, one in network.inputs.items()}
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def describe_runtime(index: int) -> tuple[str, ...]:
    """Return what an engine depends on besides its network: the GPU, its driver, and versions."""
    import onnxruntime
    import tensorrt
    import torch

    gpu = (torch.cuda.get_device_name(index), str(torch.cuda.get_device_capability(index)), str(driver_version()))
    return (*gpu, torch.__version__, onnxruntime.__version__, tensorrt.__version__)


def engine_key(network: TracedNetwork, device: Device, runtime: Sequence[str]) -> str:
    """Return a name for the engine of these weights in this precision and largest batch, on this GPU and versions."""
    digest = hashlib.sha256()
    for part in (network.name, device.precision, str(network.max_batch), *runtime):
        digest.update(part.encode() + b"\0")
    for name, array in sorted(network.arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + b"\0")
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:KEY_LENGTH]


@contextlib.contextmanager
def engine_folder(compiled: Path | None, key: str) -> Iterator[tuple[Path, bool]]:
    """Provide the locked folder of an engine, and True; a temporary one, and False, if there is none to keep it in."""
    if compiled is not None:
        folder = compiled / FOLDER / key
        with contextlib.ExitStack() as stack:
            try:
                for path in (compiled, compiled / FOLDER, folder):
                    make_private(path)
                    check_trusted(path)
                stack.enter_context(locked(folder, BUILD_TIMEOUT_S))
            except OSError as err:
                reason = err.strerror or str(err)
                logger.warning("an engine can't be kept", extra={"folder": str(folder), "reason": reason})
            else:
                yield folder, True
                return
    with tempfile.TemporaryDirectory(prefix="viseme-engine-") as temporary:
        yield Path(temporary), False
