"""Errors a user can fix. The command prints them as one line; everything else is a bug and keeps its traceback."""


class SegzooError(Exception):
    """Base of the errors whose message says what was found, what was expected and what fixes it."""


class ConfigError(SegzooError):
    """An option, a method name or a combination of them that cannot work."""


class DataError(SegzooError):
    """A folder, image or mask that is missing or not what it should be; the message names the file."""


class CheckpointError(SegzooError):
    """A checkpoint that cannot be read or belongs to another method."""


class SaidElsewhere(SegzooError):
    """What ended this process is printed by the first one of the run."""


class NonFiniteLossError(SegzooError):
    """A loss term became NaN or infinite; the message names the term, the step and the saved checkpoint."""


class NonFinitePredictionError(SegzooError):
    """A network made logits that are NaN or infinite, of which no class is the largest; the message says of how many images."""
