"""The study on photographs: ``python -m docs.photographs.study``."""
