"""What is done with data before a training: looked at, described in a YAML, copied at the size that is trained on."""
