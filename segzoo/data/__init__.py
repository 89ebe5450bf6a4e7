"""Data sets, label spaces and the one DataModule."""

from segzoo.data.datamodule import DomainDataModule
from segzoo.data.domains import Domain, ImageSet
from segzoo.data.folders import PairedFolders
from segzoo.data.harm import Harmed
from segzoo.data.label_spaces import LabelSpace, load_label_space
from segzoo.data.minicity import MiniCity
from segzoo.data.minifaces import MiniFaces
from segzoo.data.several import SeveralDomains
from segzoo.data.streams import Stream
from segzoo.data.two_folders import from_folders
from segzoo.data.views import Views

__all__ = [
    "Domain",
    "DomainDataModule",
    "Harmed",
    "ImageSet",
    "LabelSpace",
    "MiniCity",
    "MiniFaces",
    "PairedFolders",
    "SeveralDomains",
    "Stream",
    "Views",
    "from_folders",
    "load_label_space",
]
