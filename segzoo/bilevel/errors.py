"""Why an exact derivative, or a captured one, cannot be had. Each message says what to use instead."""


class DerivativeError(RuntimeError):
    """Base of the following."""


class LostTangentError(DerivativeError):
    """The derivative did not reach the output: a compiled module, a collective or a detached path swallowed it."""


class MissingDerivativeError(DerivativeError):
    """A layer whose forward or backward pass has no forward-mode derivative."""


class ShardedParametersError(DerivativeError):
    """The parameters are sharded over the ranks, for which neither forward-mode nor second derivatives exist."""


class CaptureError(DerivativeError):
    """A computation that cannot be a CUDA graph: it reads values, or copies from the CPU."""
