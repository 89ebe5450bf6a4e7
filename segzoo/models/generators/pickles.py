"""Reads the network files (.pkl) of the StyleGAN2-ADA and StyleGAN3 releases without running anything that is in them.

Such a file is a pickle of live modules, with their source code inside, and reading it the ordinary way executes whatever its
author put there. Here the pickle machine is handed nothing but what follows, and refuses every other name:

    plain containers     dict (also for ordered and attribute dicts), set
    `_Opaque` values     storages, tensors, numeric arrays, data types and modules, which it can pass on but not change
    `_Call` objects      that build one opaque value each

Storages are torch files of their own; `torch.load` reads them with ``weights_only``. Source code is skipped.
"""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segzoo.errors import CheckpointError, ConfigError
from segzoo.models.generators.stylegan2 import StyleGAN2
from segzoo.models.state_dicts import misfit


class Network(NamedTuple):
    """What a file says of one network.

    Attributes:
        state_dict: parameters and persistent buffers by name.
        init_kwargs: the keyword arguments it was built with.
        settings: numbers, flags and words kept by its modules, e.g. ``synthesis.b4.conv1.conv_clamp``.
        class_name: of the network.
    """

    state_dict: dict[str, Tensor]
    init_kwargs: dict[str, Any]
    settings: dict[str, Any]
    class_name: str


def read_network(path: str | Path) -> dict[str, Network]:
    """All networks of a file: ``G``, ``D`` and ``G_ema`` in the official ones, tensors on the CPU.

    Raises:
        CheckpointError: no such file, no network in it, or it asks for more than a network needs; the message names what.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no network file at {path}")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
        modules = {k: v for k, v in content.items() if isinstance(v, _Module)} if isinstance(content, dict) else {}
        networks = {name: _network(module) for name, module in modules.items()}
    except Exception as error:  # a hostile or damaged pickle can raise whatever it likes
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else f"it is damaged ({type(error).__name__})"
        raise CheckpointError(f"{path} is not read: {reason}") from error
    if not networks:
        raise CheckpointError(f"{path} holds no network: expected a dict with G_ema, as StyleGAN2-ADA writes it")
    return networks


_CONFIRMED = {
    "c_dim": 0,
    "img_channels": 3,
    "synthesis_kwargs.architecture": "skip",
    "synthesis_kwargs.resample_filter": [1, 3, 3, 1],
    "synthesis_kwargs.activation": "lrelu",
    "synthesis_kwargs.use_noise": True,
    "mapping_kwargs.activation": "lrelu",
    "mapping_kwargs.lr_multiplier": 0.01,
}
"""Arguments of the official generator that change what it computes, with the only value that `StyleGAN2` computes."""


def load_stylegan2(path: str | Path, truncation: float = 0.7, cutoff: int | None = 8) -> StyleGAN2:
    """The averaged generator (``G_ema``) of a network file.

    Args:
        path: a .pkl file.
        truncation: see `StyleGAN2`.
        cutoff: see `StyleGAN2`.

    Returns:
        The generator in evaluation mode, on the CPU.

    Raises:
        CheckpointError: see `read_network`; or the network is not an unconditional StyleGAN2.
    """
    networks = read_network(path)
    if "G_ema" not in networks:
        raise CheckpointError(f"{path} has no G_ema: found {', '.join(map(str, networks))}")
    state, arguments, settings, _ = networks["G_ema"]
    try:
        # On no device: nothing is drawn or allocated for sizes that the weights do not have.
        with torch.device("meta"):
            network = _build(arguments, settings, truncation, cutoff)
    except (ConfigError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a StyleGAN2 generator that can be built: {error}") from error
    if reason := misfit(network.state_dict(), state):
        raise CheckpointError(f"{path} is not a StyleGAN2 generator: {reason}")
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval()


def _build(arguments: dict[str, Any], settings: dict[str, Any], truncation: float, cutoff: int | None) -> StyleGAN2:
    mapping, synthesis = (arguments.get(f"{part}_kwargs", {}) for part in ("mapping", "synthesis"))
    given = arguments | {f"mapping_kwargs.{k}": v for k, v in mapping.items()}
    given |= {f"synthesis_kwargs.{k}": v for k, v in synthesis.items()}
    for name, expected in _CONFIRMED.items():
        if given.get(name, expected) != expected:
            raise ConfigError(f"{name} is {given[name]}, expected {expected}")
    missing = [name for name in ("z_dim", "w_dim", "img_resolution") if name not in arguments]
    if missing:
        raise ConfigError(f"it was built without {', '.join(missing)}")
    return StyleGAN2(
        arguments["z_dim"],
        arguments["w_dim"],
        arguments["img_resolution"],
        channel_base=synthesis.get("channel_base", 32768),
        channel_max=synthesis.get("channel_max", 512),
        mapping_layers=mapping.get("num_layers", 8),
        # The releases differ in the default, so the module's own word counts.
        clamp=settings.get("synthesis.b4.conv1.conv_clamp", synthesis.get("conv_clamp")),
        truncation=truncation,
        cutoff=cutoff,
    )


class _Opaque:
    """A value the pickle machine can only pass on: no attribute to set, not an item, no call."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it changes a {type(self).__name__.strip('_').lower()}")


class _Call(_Opaque):
    """A builder. Not the bare function, whose defaults and attributes a pickle could set."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return self.value(*args)


class _Storage(_Opaque):
    __slots__ = ()


class _Tensor(_Opaque):
    __slots__ = ()


class _Module(_Opaque):
    """The value is (class name, attributes)."""

    __slots__ = ()


class _DType(_Opaque):
    """The value is a NumPy type string, of which a second step tells the byte order."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it asks for numpy data of byte order {order!r}")
        self.value = np.dtype(self.value).newbyteorder(order).str


class _Array(_Opaque):
    """The value is a tensor, once its content has come."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        array = _numbers(dtype, content).reshape(shape, order="F" if fortran else "C")
        self.value = torch.from_numpy(np.ascontiguousarray(array).reshape(shape))


class _Dict(dict[Any, Any]):
    """A dict; Python before 3.11 restores the empty attributes of subclasses, which changes nothing."""

    def __setstate__(self, state: Any) -> None:
        if state:
            raise pickle.UnpicklingError("it sets attributes of a dict")


def _load_storage(content: bytes) -> _Storage:
    try:
        storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Of torch's message only the name counts; the rest is advice to trust the file.
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise pickle.UnpicklingError(_refusal(name[1]) if name else "it holds a damaged storage") from error
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError(f"a storage holds {type(storage).__name__}")
    return _Storage(storage)


def _rebuild_tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> _Tensor:
    _expect(storage, _Storage)
    flat = torch.empty(0, dtype=storage.value.dtype).set_(storage.value)
    # Unlike `set_`, `as_strided` does not enlarge a storage that is too small, but raises.
    return _Tensor(flat.as_strided(size, stride, offset))


def _rebuild_parameter(data: _Tensor, *_: Any) -> _Tensor:
    _expect(data, _Tensor)
    return data


def _rebuild_module(meta: dict[str, Any]) -> _Module:
    if meta["type"] != "class" or not isinstance(meta["state"], dict):
        raise pickle.UnpicklingError(f"it asks for a persistent {meta['type']!r}")
    return _Module((str(meta["class_name"]), meta["state"]))


def _build_dtype(code: str, *_: Any) -> _DType:
    if not isinstance(code, str) or code[:1] not in tuple("biuf") or not code[1:].isdigit():
        raise pickle.UnpicklingError(f"it asks for numpy data of type {code!r}, not of numbers")
    return _DType(code)


def _build_array(*_: Any) -> _Array:
    return _Array(None)


def _build_scalar(dtype: _DType, content: bytes) -> float:
    return _numbers(dtype, content).item()


def _numbers(dtype: _DType, content: bytes) -> np.ndarray:
    """A one-dimensional copy, in this machine's byte order."""
    _expect(dtype, _DType)
    values = np.frombuffer(content, dtype=dtype.value)
    return values.astype(values.dtype.newbyteorder("="))


def _latin1(text: str, encoding: str) -> bytes:
    # How pickles of protocol 2 spell bytes.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


def _refusal(name: str) -> str:
    return f"it asks for '{name}', which no network needs; such a file can run anything"


def _expect(value: object, kind: type[_Opaque]) -> None:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"found {type(value).__name__} in place of a {kind.__name__.strip('_').lower()}")


_KNOWN: dict[str, Callable[..., Any] | _Opaque] = {
    "builtins.set": set,
    "__builtin__.set": set,
    "collections.OrderedDict": _Dict,
    "dnnlib.util.EasyDict": _Dict,
    "_codecs.encode": _Call(_latin1),
    "torch.storage._load_from_bytes": _Call(_load_storage),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(_rebuild_parameter),
    "torch_utils.persistence._reconstruct_persistent_obj": _Call(_rebuild_module),
    "numpy.dtype": _Call(_build_dtype),
    "numpy.ndarray": _Opaque(None),
    "numpy.core.multiarray._reconstruct": _Call(_build_array),
    "numpy._core.multiarray._reconstruct": _Call(_build_array),
    "numpy.core.multiarray.scalar": _Call(_build_scalar),
    "numpy._core.multiarray.scalar": _Call(_build_scalar),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only whole names that are in the table: no import, no attribute access."""
        asked = f"{module}.{name}"
        if asked not in _KNOWN:
            raise pickle.UnpicklingError(_refusal(asked))
        return _KNOWN[asked]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def _network(module: _Module) -> Network:
    state_dict: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    _collect(module, "", state_dict, settings)
    class_name, state = module.value
    return Network(state_dict, _plain(state.get("_init_kwargs", {})), settings, class_name)


def _collect(module: _Module, prefix: str, state_dict: dict[str, Tensor], settings: dict[str, Any]) -> None:
    _expect(module, _Module)
    _, state = module.value
    transient = state.get("_non_persistent_buffers_set", ())
    kept = {name: value for name, value in state.get("_buffers", {}).items() if name not in transient}
    for name, value in (state.get("_parameters", {}) | kept).items():
        if value is not None:
            _expect(value, _Tensor)
            state_dict[prefix + name] = value.value
    for name, value in state.items():
        if isinstance(value, (bool, int, float, str)):
            settings[prefix + name] = value
    for name, child in state.get("_modules", {}).items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", state_dict, settings)


def _plain(value: Any) -> Any:
    """Plain containers, numbers, words and tensors all the way down."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(_plain, value))
    if isinstance(value, (_Tensor, _Array)):
        return value.value
    if isinstance(value, _Opaque):
        raise pickle.UnpicklingError(f"a {type(value).__name__.strip('_').lower()} is among a network's arguments")
    return value
