"""Networks: segmenters, and what weighs source pixels."""
