"""The one error type for input that the caller can mend."""


class InputError(ValueError):
    """Data or arguments that cannot be used; the message says what was required, what came, what to do."""
