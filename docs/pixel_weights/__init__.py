"""When do pixel weights pay: the study behind `docs/pixel_weights.md`."""
