"""The code of docs/extending.md and docs/python.md runs as it stands there."""

import ast
import re
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segzoo.data import DomainDataModule
from segzoo.models.segmenter import ARCHITECTURES, create_segmenter
from tests import tiny

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "extending.md").read_text()


def blocks(text: str, language: str) -> dict[str, str]:
    """The blocks of a page by their section."""
    found = re.findall(rf"^## ([^\n]+)\n(?:(?!^## ).)*?^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "my_package"}
    exec(compile(ast.parse(code), "page.md", "exec"), names)
    return names


def test_every_section_has_code() -> None:
    assert set(blocks(PAGE, "python")) == {"A method", "A data set", "A network"}


def test_the_method_trains() -> None:
    cls, data = run(blocks(PAGE, "python")["A method"])["HalfHalf"], tiny.data()
    trained = cls(label_space=data.label_space, network=tiny.NETWORK, share=0.3)
    tiny.trainer(2).fit(trained, datamodule=data)
    assert trained.trainer.global_step == 2 and trained.share == 0.3


def test_the_method_is_a_packages_entry_point() -> None:
    project = tomllib.loads(blocks(PAGE, "toml")["A method"])["project"]
    cls = run(blocks(PAGE, "python")["A method"])["HalfHalf"]
    assert project["name"] and project["version"]
    assert project["entry-points"]["segzoo.methods"] == {cls.slug: f"my_package.half:{cls.__name__}"}


def test_the_data_set_is_read_and_its_yaml_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(blocks(PAGE, "python")["A data set"])
    domain = names["StripesDomain"]
    data = DomainDataModule(domain(), domain(), target_labels=2, size=(32, 48), batch_size=2, num_workers=0)
    assert data.label_space.classes == ("ground", "stripe")
    data.setup("fit")
    assert data.images("source", "train").label(1)[0].tolist() == [0] * 6 + [1] * 8 + [0] * 34
    monkeypatch.setitem(sys.modules, "my_package.stripes", types.SimpleNamespace(**names))
    described = yaml.safe_load(blocks(PAGE, "yaml")["A data set"])["data"]
    for side in ("source", "target"):
        module, _, name = described[side]["class_path"].rpartition(".")
        assert getattr(sys.modules[module], name) is domain


def test_the_network_is_built_by_its_name() -> None:
    try:
        run(blocks(PAGE, "python")["A network"])
        segmenter = create_segmenter("plain", "resnet18", 3).eval()
        with torch.no_grad():
            assert segmenter(torch.rand(1, 3, 40, 50)).shape == (1, 3, 40, 50)
    finally:
        ARCHITECTURES.pop("plain", None)


def test_the_bilevel_step_alone() -> None:
    names = run(blocks((DOCS / "python.md").read_text(), "python")["The bilevel step alone"])
    found, network = names["found"], names["network"]
    weights = torch.ones(2, 8, 8, requires_grad=True)
    loss = (weights * names["source"]()).sum() / weights.numel()
    gradient = torch.autograd.grad(loss, network.parameters(), create_graph=True)
    ahead = {n: p - 0.1 * g for (n, p), g in zip(network.named_parameters(), gradient, strict=True)}
    (reference,) = torch.autograd.grad(names["target"](ahead), weights)
    torch.testing.assert_close(found.weights, reference, rtol=1e-4, atol=1e-8)


def test_the_list_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    run(blocks((DOCS / "python.md").read_text(), "python")["List the methods"])
    assert "metapix ('source', 'labels')" in capsys.readouterr().out
