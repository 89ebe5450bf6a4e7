"""A generator by name or file, and what it takes to build the same one again."""

from pathlib import Path
from typing import Any

import torch

from segzoo.errors import CheckpointError, ConfigError
from segzoo.models.generators.base import Generator
from segzoo.models.generators.dcgan import DCGAN, load_dcgan
from segzoo.models.generators.pickles import load_stylegan2
from segzoo.models.generators.stylegan2 import StyleGAN2
from segzoo.models.state_dicts import misfit, non_finite
from segzoo.models.weight_files import load_tensors
from segzoo.suggest import did_you_mean

KINDS: dict[str, type[Generator]] = {"dcgan": DCGAN, "stylegan2": StyleGAN2}
PACKAGED = "packaged"
"""Name of the generator of MiniFaces that ships with segzoo."""
AVERAGE = "average.network."
"""Where the method `gan` keeps its averaged generator."""


def create_generator(kind: str, settings: dict[str, Any] | None = None) -> Generator:
    """An untrained generator.

    Args:
        kind: ``dcgan`` or ``stylegan2``.
        settings: arguments of its class.

    Raises:
        ConfigError: an unknown kind, or arguments that its class refuses.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown generator '{kind}'{did_you_mean(kind, KINDS)}")
    try:
        return KINDS[kind](**(settings or {}))
    except TypeError as error:
        raise ConfigError(f"`method.generator_options` of {kind}: {error}") from error


def describe(generator: Generator) -> dict[str, Any]:
    """What `rebuild` needs, in plain types."""
    kind = next(name for name, cls in KINDS.items() if isinstance(generator, cls))
    return {"kind": kind, **generator.settings}


def rebuild(description: dict[str, Any]) -> Generator:
    """The network that `describe` described, without its weights."""
    settings = dict(description)
    return create_generator(settings.pop("kind"), settings)


def save_generator(generator: Generator, path: str | Path) -> None:
    """Writes a generator in half precision, as the packaged one is."""
    state = {name: t.half() if t.is_floating_point() else t for name, t in generator.state_dict().items()}
    torch.save({"generator": describe(generator), "state_dict": state}, path)


def load_generator(name: str) -> Generator:
    """A trained generator in evaluation mode, frozen, on the CPU.

    Args:
        name: ``packaged``; the path of a checkpoint of the method ``gan``, of a file of `save_generator`, of a DCGAN's state
            dict, or of a network file (.pkl) of the StyleGAN2-ADA and StyleGAN3 releases.

    Raises:
        CheckpointError: no such file, or nothing of these.
    """
    path = Path(__file__).with_name("minifaces.pt") if name == PACKAGED else Path(name).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"no generator weights at {path}; expected '{PACKAGED}', or a checkpoint of the method 'gan'"
        )
    generator = load_stylegan2(path) if path.suffix == ".pkl" else _load_ours(path) or load_dcgan(path)
    if bad := non_finite(generator.state_dict()):
        raise CheckpointError(f"the generator of {path} holds numbers that are not finite, first in '{bad}'")
    return generator.eval().requires_grad_(False)


def _load_ours(path: Path) -> Generator | None:
    try:
        content = load_tensors(path)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a readable file of weights: it is damaged, or holds code") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        return None  # a bare state dict
    description, state = content.get("generator"), content["state_dict"]
    if "segzoo" in content:
        try:
            method, options = content["segzoo"]["method"], content["hyper_parameters"]
            if method != "gan":
                raise CheckpointError(f"{path} is a checkpoint of '{method}', expected one of 'gan'")
            description = {"kind": options["generator"], **(options["generator_options"] or {})}
            state = {k.removeprefix(AVERAGE): v for k, v in state.items() if k.startswith(AVERAGE)}
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is not a whole checkpoint of the method 'gan'") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no weights (no 'state_dict')")
    if description is None:
        raise CheckpointError(f"{path} is neither a generator nor a checkpoint of the method 'gan'")
    generator = rebuild(description)
    if why := misfit(generator.state_dict(), state):
        raise CheckpointError(f"{path} does not fit its own description of the generator: {why}")
    generator.load_state_dict(state)
    return generator
