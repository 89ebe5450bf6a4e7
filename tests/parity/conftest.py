import pytest


@pytest.fixture(autouse=True)
def _small_layers_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of these tests have no large ones."""
    monkeypatch.setattr("segzoo.bilevel.kept.FAN_IN", 0)
