"""Image generators that show their feature maps."""

from segzoo.models.generators.base import Generator, Sample
from segzoo.models.generators.dcgan import DCGAN, load_dcgan
from segzoo.models.generators.pickles import load_stylegan2, read_network
from segzoo.models.generators.stylegan2 import StyleGAN2

__all__ = ["DCGAN", "Generator", "Sample", "StyleGAN2", "load_dcgan", "load_stylegan2", "read_network"]
