"""Methods of third parties."""

from importlib.metadata import EntryPoint

import pytest

from segzoo.errors import ConfigError
from segzoo.methods import registry
from segzoo.methods.single_domain import SourceOnly


class Good(SourceOnly):
    slug = "mine"


class WithoutSlug(SourceOnly):
    slug = None  # type: ignore[assignment]


class WrongResources(SourceOnly):
    slug = "mine"
    resources = ("some",)  # type: ignore[assignment]


def not_a_class() -> None: ...


@pytest.mark.parametrize(
    ("name", "attribute", "message"),
    [
        ("half", "Good", r"has slug = 'mine' but its entry point is named 'half'; give both the same name"),
        ("mine", "WithoutSlug", "has slug = None but its entry point is named 'mine'"),
        ("mine", "WrongResources", r"has resources = \('some',\), expected a tuple of some of \('source', "),
        ("mine", "not_a_class", "is no Method"),
        ("mine", "EntryPoint", "is no Method"),
        ("mine", "Absent", "cannot be imported"),
    ],
)
def test_a_plugin_that_could_not_be_used_later_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, attribute: str, message: str
) -> None:
    point = EntryPoint(name, f"{__name__}:{attribute}", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(ConfigError, match=message):
        registry.load_method(name)


def test_a_plugin_that_fits_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{__name__}:Good", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert registry.load_method("mine") is Good
