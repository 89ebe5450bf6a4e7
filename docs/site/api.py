"""The pages of the Python API: each names what it shows, and mkdocstrings takes it from the sources."""

PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "segzoo": (
        "Train, load and predict",
        ("segzoo.inference.predictor", "segzoo.inference.prediction", "segzoo.methods.registry"),
    ),
    "data": (
        "Data",
        (
            "segzoo.data.two_folders",
            "segzoo.data.datamodule",
            "segzoo.data.folders",
            "segzoo.data.label_spaces",
            "segzoo.data.views",
        ),
    ),
    "methods": (
        "Methods",
        (
            "segzoo.methods.base",
            "segzoo.methods.segmentation",
            "segzoo.methods.joint",
            "segzoo.methods.meta_update",
            "segzoo.methods.self_training",
        ),
    ),
    "bilevel": ("The bilevel step", ("segzoo.bilevel",)),
    "losses": ("Losses", ("segzoo.losses",)),
    "adaptation": ("Adaptation", ("segzoo.adaptation",)),
    "evaluation": ("Evaluation", ("segzoo.evaluation",)),
}
"""Title and modules of a page, by its name."""


def api_pages() -> dict[str, str]:
    """The pages by their file's name."""
    return {f"api/{name}.md": page(title, modules) for name, (title, modules) in PAGES.items()}


def page(title: str, modules: tuple[str, ...]) -> str:
    """A page of the reference.

    Args:
        title: its heading.
        modules: import paths.
    """
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)]) + "\n"
