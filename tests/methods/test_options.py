"""The options of a method: all in its own signature, few enough to be read, plain in a checkpoint."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from segzoo.data import MiniCity
from segzoo.errors import ConfigError
from segzoo.methods.base import Method
from segzoo.methods.registry import load_method
from segzoo.methods.segmentation import SegmentationMethod
from segzoo.methods.speed import Speed
from segzoo.models import segmenter, state_dicts, weight_files
from segzoo.models.generators import load
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
every_method = pytest.mark.parametrize("slug", tiny.METHODS)
SHARED = ("label_space", "network", "optimizer", "loss", "speed")
MOST = {"metapix": 19, "self-training": 16, "sepico": 22, "region-selection": 14, "gradient-annotator": 18}
SET: dict[str, Any] = {"compile": True, "channels_last": True, "cuda_graph": True, "keep_outputs": False}
SET["micro_batches"] = 2


def own(slug: str) -> dict[str, inspect.Parameter]:
    """The options of a method alone, as its class declares them."""
    parameters = inspect.signature(load_method(slug).__init__).parameters
    return {name: p for name, p in parameters.items() if name not in ("self", *SHARED)}


@every_method
def test_every_option_is_listed(slug: str) -> None:
    """Keywords with defaults, and nothing that passes unknown names on: a mistyped one is an error."""
    cls = load_method(slug)
    for parent in cls.__mro__:
        if issubclass(parent, Method):
            kinds = {p.kind for name, p in inspect.signature(parent.__init__).parameters.items() if name != "self"}
            assert kinds == {inspect.Parameter.KEYWORD_ONLY}, parent
    assert all(p.default is not inspect.Parameter.empty for p in own(slug).values())
    assert "__init__" in vars(cls) or not own(slug)
    assert ("network" in inspect.signature(cls).parameters) == issubclass(cls, SegmentationMethod)
    with pytest.raises(TypeError, match="no_such_option"):
        tiny.method(slug, no_such_option=1)


@pytest.mark.parametrize(("slug", "most"), MOST.items())
def test_there_are_few_of_them(slug: str, most: int) -> None:
    assert len(own(slug)) <= most


@pytest.mark.parametrize("option", Speed.__dataclass_fields__)
@every_method
def test_a_speed_option_is_used_or_refused(slug: str, option: str) -> None:
    options = {"speed": {option: SET[option]}}
    if option in load_method(slug).SPEED:
        assert getattr(tiny.method(slug, **options).speed, option) == SET[option]
    else:
        with pytest.raises(ConfigError, match=f"`speed.{option}` is nothing that the method '{slug}' can use"):
            tiny.method(slug, **options)


def types(value: Any) -> set[type]:
    """All types in a value, however deep."""
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    nested = [types(part) for part in inside] if isinstance(value, dict | list | tuple) else []
    return {type(value)}.union(*nested)


PLAIN = {dict, list, tuple, str, int, float, bool, type(None)}


@every_method
def test_a_checkpoint_holds_the_options_in_plain_types(slug: str) -> None:
    hparams = dict(tiny.method(slug).hparams)
    assert hparams.keys() == inspect.signature(load_method(slug)).parameters.keys()
    assert types(hparams) <= PLAIN
    json.dumps(hparams)


def test_options_of_dataclasses_are_plain_too() -> None:
    from segzoo.adaptation import Night
    from segzoo.methods.optimizer import Optimizer
    from segzoo.methods.self_training import SelfTraining
    from segzoo.models.network import Network

    space = MiniCity("target", size=tiny.SIZE).label_space
    given = SelfTraining(
        label_space=space,
        network=Network(**tiny.NETWORK),
        optimizer=Optimizer(lr=0.25),
        speed=Speed(channels_last=True),
        night=Night(classes=["road"], weight=0.7),
    )
    assert types(dict(given.hparams)) <= PLAIN
    assert given.hparams["night"]["classes"] == ["road"] and given.hparams["speed"]["channels_last"] is True
    again = SelfTraining(**dict(given.hparams))
    assert dict(again.hparams) == dict(given.hparams)
    assert again.night is not None and again.night.options == Night(classes=["road"], weight=0.7)
    assert (again.optimizer_options, again.speed) == (given.optimizer_options, given.speed)


STARTS: dict[str, dict[str, Any]] = {
    "gradient-annotator": {"labels": "teacher", "teacher_checkpoint": "teacher.ckpt"},
}


@every_method
def test_a_method_is_rebuilt_from_its_checkpoint_alone(
    slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that a run began with may be gone by then."""
    monkeypatch.chdir(tmp_path)
    cls, options = load_method(slug), STARTS.get(slug, {})
    if issubclass(cls, SegmentationMethod):
        start = tiny.method("target-only")
        space = {"method": "target-only", "label_space": start.label_space.to_dict()}
        for name in ("start.ckpt", "teacher.ckpt"):
            torch.save({"state_dict": start.state_dict(), "segzoo": space}, name)
        torch.save(start.segmenter.network.encoder.state_dict(), "encoder.pt")
        options = options | {"initial_checkpoint": "start.ckpt", "encoder_checkpoint": "encoder.pt"}
    method = tiny.method(slug, **options)
    hparams = json.loads(json.dumps(dict(method.hparams)))
    for file in tmp_path.iterdir():
        file.unlink()
    opened: list[Any] = []

    def refuse(*args: Any, **_: Any) -> Any:
        opened.append(args)
        raise AssertionError(f"a file of weights was opened: {args}")

    monkeypatch.setattr(torch, "load", refuse)
    for module in (segmenter, state_dicts, weight_files, load):
        for name in ("load_tensors", "load_encoder", "load_part"):
            monkeypatch.setattr(module, name, refuse, raising=False)
    again = cls.restored(hparams | {"_instantiator": "of Lightning"})
    assert not opened
    before, after = method.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    again.load_state_dict(before)
    assert all(before[name].shape == value.shape for name, value in after.items())
    assert again.label_space == method.label_space
    kept = {name: value for name, value in dict(again.hparams).items() if name not in ("network", *cls.STARTING_POINTS)}
    assert json.loads(json.dumps(kept)) == {name: value for name, value in hparams.items() if name in kept}
