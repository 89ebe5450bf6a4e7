"""The other distribution that writes a package called ``segzoo``, and what its presence means. Free of torch."""

from importlib.metadata import PackageNotFoundError, version

OURS, OTHER = "segzoo-da", "segzoo"


def neighbour_warning() -> str | None:
    """What to say where the unrelated distribution ``segzoo`` is installed in the same environment; None where it is not.

    Both write ``segzoo/__init__.py`` and the command ``segzoo``. The one that was installed last works, until pip removes the
    other one and the shared files with it.
    """
    try:
        found = version(OTHER)
    except PackageNotFoundError:
        return None
    return (
        f"the distribution `{OTHER}` {found}, another project, is installed beside `{OURS}`, and both write the package "
        f"`segzoo`; give each an environment of its own, or run `pip uninstall {OTHER} {OURS}` and install `{OURS}` again"
    )
