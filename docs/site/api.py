"""The pages of the Python API: each names what it shows, and mkdocstrings takes it from the sources."""

PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "segzoo": (
        "Train, load and predict",
        (
            "segzoo.inference.predictor.load",
            "segzoo.inference.predictor.Predictor",
            "segzoo.inference.prediction.Prediction",
            "segzoo.methods.registry.methods",
            "segzoo.methods.registry.MethodInfo",
        ),
    ),
    "data": (
        "Data",
        (
            "segzoo.data.two_folders.from_folders",
            "segzoo.data.datamodule.DomainDataModule",
            "segzoo.data.folders.PairedFolders",
            "segzoo.data.several.SeveralDomains",
            "segzoo.data.harm.Harmed",
            "segzoo.data.label_spaces.LabelSpace",
            "segzoo.data.label_spaces.load_label_space",
            "segzoo.data.views.Views",
            "segzoo.data.domains.Domain",
            "segzoo.data.domains.ImageSet",
        ),
    ),
    "methods": (
        "Methods",
        (
            "segzoo.methods.base.Method",
            "segzoo.methods.segmentation.SegmentationMethod",
            "segzoo.methods.joint.WeightedJointTraining",
            "segzoo.methods.meta_update.MetaUpdate",
            "segzoo.methods.self_training.SelfTraining",
        ),
    ),
    "bilevel": ("The bilevel step", ("segzoo.bilevel",)),
    "losses": ("Losses", ("segzoo.losses",)),
    "adaptation": ("Adaptation", ("segzoo.adaptation",)),
    "evaluation": ("Evaluation", ("segzoo.evaluation",)),
}
"""Title of a page and what it shows (packages, classes, functions), by its name."""


def api_pages() -> dict[str, str]:
    """The pages by their file's name."""
    return {f"api/{name}.md": page(title, shown) for name, (title, shown) in PAGES.items()}


def page(title: str, names: tuple[str, ...]) -> str:
    """A page of the reference.

    Args:
        title: its heading.
        names: import paths.
    """
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)]) + "\n"
