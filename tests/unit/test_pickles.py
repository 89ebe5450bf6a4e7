"""Network files are read, and nothing in them is run."""

import builtins
import collections
import contextlib
import functools
import io
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segzoo.errors import CheckpointError
from segzoo.models.generators import StyleGAN2, load_stylegan2, read_network
from segzoo.models.generators import pickles as reader

SIZES: dict[str, Any] = {
    "z_dim": 8,
    "w_dim": 12,
    "resolution": 8,
    "channel_base": 64,
    "channel_max": 8,
    "mapping_layers": 2,
}
ARGUMENTS: dict[str, Any] = {
    "c_dim": 0,
    "z_dim": 8,
    "w_dim": 12,
    "img_resolution": 8,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
    "synthesis_kwargs": {"channel_base": 64, "channel_max": 8, "num_fp16_res": 4, "conv_clamp": 256},
}


class EasyDict(dict[str, Any]):
    """An attribute dict, pickled by the name of the official one."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("the reader must not call what the file names")


@pytest.fixture(autouse=True)
def _official_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for thing, name in ((EasyDict, "dnnlib.util"), (_reconstruct_persistent_obj, "torch_utils.persistence")):
        module = ModuleType(name)
        setattr(module, thing.__name__, thing)
        monkeypatch.setattr(thing, "__module__", name)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name.partition(".")[0]))


class Persistent:
    """Pickles as the official releases pickle a module: attributes, nested modules and source code in one dict."""

    def __init__(self, module: nn.Module, class_name: str = "Layer", **attributes: Any) -> None:
        children = {name: Persistent(child) for name, child in module._modules.items() if child is not None}
        state = {**module.__dict__, "_modules": collections.OrderedDict(children), **attributes}
        if hasattr(module, "clamp"):
            state["conv_clamp"] = state.pop("clamp")
        self.meta = EasyDict(type="class", version=6, module_src="raise SystemExit", class_name=class_name, state=state)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,)


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def generator(**attributes: Any) -> Persistent:
    torch.manual_seed(0)
    network = StyleGAN2(**SIZES, clamp=256)
    network.mapping.w_avg.normal_()
    kwargs = EasyDict(ARGUMENTS | attributes.pop("arguments", {}))
    return Persistent(network, "Generator", _init_args=(), _init_kwargs=kwargs, **attributes)


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_network_is_read_as_it_was_written(tmp_path: Path, protocol: int) -> None:
    discriminator = Persistent(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "Discriminator", _init_kwargs=EasyDict()
    )
    content = {"G": generator(), "D": discriminator, "G_ema": generator(), "training_set_kwargs": EasyDict(path="x")}
    path = write(tmp_path / "network.pkl", content, protocol)
    networks = read_network(path)
    assert set(networks) == {"G", "D", "G_ema"}
    assert networks["G_ema"].init_kwargs == ARGUMENTS and networks["G_ema"].class_name == "Generator"
    assert set(networks["D"].state_dict) == set(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict())

    torch.manual_seed(0)
    original = StyleGAN2(**SIZES, clamp=256)
    original.mapping.w_avg.normal_()
    loaded = load_stylegan2(path, truncation=0.5, cutoff=2)
    assert not loaded.training and (loaded.truncation, loaded.cutoff) == (0.5, 2)
    z = torch.randn(2, 8)
    torch.testing.assert_close(loaded(z, 0.5).image, original.eval()(z, 0.5).image, rtol=0, atol=0)


def test_reading_draws_no_random_number(tmp_path: Path) -> None:
    path = write(tmp_path / "network.pkl", {"G_ema": generator()})
    before = torch.get_rng_state()
    load_stylegan2(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_clamp_is_the_modules_own(tmp_path: Path) -> None:
    # One release clamps by default, the other does not: the arguments alone do not tell.
    arguments = {"synthesis_kwargs": {"channel_base": 64, "channel_max": 8}}
    path = write(tmp_path / "network.pkl", {"G_ema": generator(arguments=arguments)})
    assert load_stylegan2(path).synthesis.b8.conv0.clamp == 256


def test_views_non_persistent_buffers_and_none_are_told_apart(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(24.0).view(4, 6)
            self.register_buffer("part", whole[1:3, ::2].t())
            self.register_buffer("low", whole.half())
            self.register_buffer("count", torch.tensor(7))
            self.register_buffer("scratch", torch.zeros(2), persistent=False)
            self.register_buffer("nothing", None)
            self.register_parameter("bias", None)

    read = read_network(write(tmp_path / "odd.pkl", {"G": Persistent(Odd())}))["G"].state_dict
    expected = Odd().state_dict()
    assert set(read) == set(expected) == {"part", "low", "count"}
    assert all(torch.equal(read[name], expected[name]) and read[name].dtype == expected[name].dtype for name in read)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", ">f4", ">i2"])
def test_numbers_of_numpy_become_tensors_and_numbers(tmp_path: Path, dtype: str, protocol: int) -> None:
    array = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    values = {
        "array": array,
        "fortran": np.asfortranarray(array),
        "scalar": array[1, 2],
        "empty": array[:0],
        "set": {1, 2},
    }
    network = Persistent(nn.Identity(), _init_kwargs=EasyDict(values))
    read = read_network(write(tmp_path / "numpy.pkl", {"G": network}, protocol))["G"].init_kwargs
    for name in ("array", "fortran"):
        np.testing.assert_array_equal(read[name].numpy(), values[name].astype(values[name].dtype.newbyteorder("=")))
    assert read["scalar"] == array[1, 2].item() and read["set"] == {1, 2}


def hostile(sentinel: Path) -> dict[str, tuple[Any, str]]:
    """Files that create ``sentinel`` when unpickled the ordinary way, and what the refusal must name."""
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"
    nested = io.BytesIO()
    torch.save(Call(os.system, command), nested, _use_new_zipfile_serialization=False)
    zipped = io.BytesIO()
    torch.save({"w": Call(os.system, command)}, zipped)
    system = f"{os.system.__module__}.system"
    # getattr(__import__("os"), "system")(command), and an attribute path that the ordinary unpickler follows.
    chain = f"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'{command}'\ntR.".encode()
    dotted = pickle.dumps(command, protocol=4)[:-1].replace(
        b"\x80\x04", b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93"
    )
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    inside = Persistent(nn.Identity())
    inside.meta["state"] = state | {"x": Call(builtins.exec, code)}
    return {
        "system": (Call(os.system, command), system),
        "eval": (Call(builtins.eval, code), "builtins.eval"),
        "exec inside a module": ({"G_ema": inside}, "builtins.exec"),
        "getattr": (chain, "builtins.getattr"),
        "partial": (Call(functools.partial(os.system, command)), "functools.partial"),
        "open": (Call(builtins.open, str(sentinel), "w"), "io.open|_io.open"),
        "dotted name": (dotted + b"\x85R.", "os.path.os.system"),
        "protocol 0": (f"cos\nsystem\n(S'{command}'\ntR.".encode(), "os.system"),
        "instance opcode": (f"(S'{command}'\nios\nsystem\n.".encode(), "os.system"),
        "object opcode": (b"(cbuiltins\nexec\nS" + repr(code).encode() + b"\no.", "builtins.exec"),
        "state setter": (Call(collections.OrderedDict, state={"a": Call(os.system, command)}), system),
        "nested storage": (Call(torch.storage._load_from_bytes, nested.getvalue()), "system"),
        "nested zip file": (Call(torch.storage._load_from_bytes, zipped.getvalue()), "system"),
        "object array": (np.array([Call(os.system, command)], dtype=object), r"numpy data of type 'O8'|system"),
        "plain object array": (np.array([None, "x"], dtype=object), "numpy data of type 'O8'"),
        "structured array": (np.zeros(2, dtype=[("a", "f4")]), "numpy data of type 'V4'"),
    }


HARMFUL = set(hostile(Path("x"))) - {"plain object array", "structured array"}


@pytest.mark.parametrize("name", hostile(Path("x")))
def test_a_hostile_file_is_refused_by_name_and_nothing_runs(tmp_path: Path, name: str) -> None:
    sentinel = tmp_path / "sentinel"
    content, asked = hostile(sentinel)[name]
    path = write(tmp_path / "hostile.pkl", content)
    for read in (read_network, load_stylegan2):
        with pytest.raises(CheckpointError, match=asked) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("name", sorted(HARMFUL))
@pytest.mark.filterwarnings("ignore:unclosed file")  # which the hostile code opens
def test_the_hostile_files_do_run_when_unpickled_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sentinel = tmp_path / "sentinel"
    path = write(tmp_path / "hostile.pkl", hostile(sentinel)[name][0])
    # Before `weights_only` was the default.
    monkeypatch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
    # What comes after may not fit together any more.
    with path.open("rb") as file, contextlib.suppress(Exception):
        pickle.load(file)
    assert sentinel.exists()


def test_persistent_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="outside the file"):
        read_network(write(tmp_path / "pid.pkl", b"\x80\x02K\x01Q."))


GLOBAL = {name: f"c{name.rpartition('.')[0]}\n{name.rpartition('.')[2]}\n".encode() for name in reader._KNOWN}


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize(
    "tail",
    [
        b"}S'__call__'\nNsb.",  # BUILD: set an attribute through a dict
        b"N}S'value'\nNs\x86b.",  # BUILD: set a slot
        b"N}S'__defaults__'\n)s\x86b.",
        b"N}S'__setstate__'\nNs\x86b.",
        b"K\x01K\x02s.",  # SETITEM
        b"K\x01a.",  # APPEND
        b"(S'x'\ntR.",  # REDUCE with an odd argument
        b"(NNNNNNNNNtR.",
        b")\x81.",  # NEWOBJ
        b"(K\x01K\x02t\x81.",
    ],
)
def test_the_allowed_names_cannot_be_changed_or_misused(tmp_path: Path, name: str, tail: bytes) -> None:
    before = everything_a_file_could_change()
    with pytest.raises(CheckpointError):  # even where the object is harmless, it is no network
        read_network(write(tmp_path / "odd.pkl", b"\x80\x02" + GLOBAL[name] + tail))
    assert everything_a_file_could_change() == before


def everything_a_file_could_change() -> list[Any]:
    found: list[Any] = []
    for value in reader._KNOWN.values():
        function = getattr(value, "value", None)
        found += [value, function, dict(vars(type(value))), getattr(function, "__defaults__", None)]
        found += [dict(vars(thing)) for thing in (value, function) if hasattr(thing, "__dict__")]
    return found


@pytest.mark.parametrize("name", ["collections.OrderedDict", "dnnlib.util.EasyDict"])
def test_dicts_take_items_but_no_attributes(tmp_path: Path, name: str) -> None:
    network = pickle.dumps(generator(), protocol=2)[2:-1]
    start = b"\x80\x02" + GLOBAL[name] + b")R(S'G'\n" + network + b"u"
    assert set(read_network(write(tmp_path / "empty.pkl", start + b"}b."))) == {"G"}
    with pytest.raises(CheckpointError, match="sets attributes of a dict"):
        read_network(write(tmp_path / "odd.pkl", start + b"}S'items'\nK\x01sb."))


def tensor_call(size: Any, stride: Any, offset: Any, content: Any = None) -> Any:
    buffer = io.BytesIO()
    torch.save(torch.zeros(4)._typed_storage(), buffer, _use_new_zipfile_serialization=False)
    storage = Call(torch.storage._load_from_bytes, buffer.getvalue()) if content is None else content
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_call((8,), (1,), 0),
        tensor_call((2,), (1,), 3),
        tensor_call((2, 2), (4, 1), 0),
        tensor_call((2,), (-1,), 1),
        tensor_call((2,), (1,), -1),
        tensor_call("ab", (1,), 0),
        tensor_call((2,), (1,), 0, content=b"bytes"),
        tensor_call((2,), (1,), 0, content=tensor_call((2,), (1,), 0)),
        Call(torch._utils._rebuild_parameter, "text", True, {}),
        tensor_call((2,), (1,), 0).__class__(
            torch._utils._rebuild_tensor_v2, *tensor_call((2,), (1,), 0).reduced[1], state={"_backward_hooks": 1}
        ),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path, tensor: Any) -> None:
    network = Persistent(nn.Identity(), _init_kwargs=EasyDict(x=tensor))
    with pytest.raises(CheckpointError, match="is not read"):
        read_network(write(tmp_path / "odd.pkl", {"G_ema": network}))


def test_a_module_inside_itself_is_refused(tmp_path: Path) -> None:
    children: collections.OrderedDict[str, Any] = collections.OrderedDict()
    children["x"] = network = Persistent(nn.Identity())
    network.meta["state"]["_modules"] = children
    with pytest.raises(CheckpointError, match="RecursionError"):
        read_network(write(tmp_path / "loop.pkl", {"first": children, "G": network}))


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04", pickle.dumps({"a": 1}), pickle.dumps([1])])
def test_other_files_are_explained(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "file.pkl", content)
    with pytest.raises(CheckpointError, match=r"file\.pkl (is not read|holds no network)"):
        read_network(path)
    with pytest.raises(CheckpointError, match="no network file"):
        load_stylegan2(tmp_path / "absent.pkl")


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"G_ema": generator()}, protocol=2)
    for length in range(0, len(data), len(data) // 60):
        with pytest.raises(CheckpointError):
            read_network(write(tmp_path / "cut.pkl", data[:length]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"G": generator}, "no G_ema: found G"),
        ({"G_ema": lambda: generator(arguments={"c_dim": 10})}, "c_dim is 10, expected 0"),
        ({"G_ema": lambda: generator(arguments={"img_resolution": 16})}, "'synthesis.b16.* is missing"),
        ({"G_ema": lambda: generator(arguments={"img_resolution": 12})}, "expected a power of two"),
        ({"G_ema": lambda: generator(arguments={"z_dim": "many"})}, "cannot|can be built"),
        ({"G_ema": lambda: generator(arguments={"w_dim": 10**9})}, "has the shape"),
        (
            {"G_ema": lambda: generator(arguments={"synthesis_kwargs": {"architecture": "resnet"}})},
            "is resnet, expected skip",
        ),
        ({"G_ema": lambda: Persistent(nn.Linear(2, 2))}, "built without z_dim, w_dim, img_resolution"),
    ],
)
def test_a_generator_of_another_kind_is_explained(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "network.pkl", {name: build() for name, build in content.items()})
    with pytest.raises(CheckpointError, match=message):
        load_stylegan2(path)
