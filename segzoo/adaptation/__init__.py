"""What methods for unlabelled targets share: the EMA teacher, pseudo labels, mixing, and what is known of every class."""

from segzoo.adaptation.alignment import DistributionAlignment
from segzoo.adaptation.augment import strong_augment
from segzoo.adaptation.balance import class_balance, frequency_weights
from segzoo.adaptation.crops import class_balanced_crop, crop, crop_box
from segzoo.adaptation.feature_distance import FeatureDistance, class_mask
from segzoo.adaptation.fourier import low_frequency_swap
from segzoo.adaptation.labels import LabelledCells, cell_labels, downscale_labels, labelled_cells
from segzoo.adaptation.masking import mask_blocks
from segzoo.adaptation.mixing import Mixture, View, class_mix, cut_mix, paste
from segzoo.adaptation.night import Night, NightGuidance
from segzoo.adaptation.pseudo_labelling import confident_share, fuse_reference, pseudo_label_weights, pseudo_labels
from segzoo.adaptation.pseudo_options import PseudoLabels
from segzoo.adaptation.statistics import ClassBank, ClassStatistics
from segzoo.adaptation.teacher import EmaTeacher, ema_decay

__all__ = [
    "ClassBank",
    "ClassStatistics",
    "DistributionAlignment",
    "EmaTeacher",
    "FeatureDistance",
    "LabelledCells",
    "Mixture",
    "Night",
    "NightGuidance",
    "PseudoLabels",
    "View",
    "cell_labels",
    "class_balance",
    "class_balanced_crop",
    "class_mask",
    "class_mix",
    "confident_share",
    "crop",
    "crop_box",
    "cut_mix",
    "downscale_labels",
    "ema_decay",
    "frequency_weights",
    "fuse_reference",
    "labelled_cells",
    "low_frequency_swap",
    "mask_blocks",
    "paste",
    "pseudo_label_weights",
    "pseudo_labels",
    "strong_augment",
]
