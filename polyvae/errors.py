"""The error type for input that the caller can mend."""


class InputError(ValueError):
    """Data or arguments that cannot be used; the message says what was required, what came, what to do."""


class FrameError(InputError):
    """One frame, number `frame`, that cannot be used where those before it can."""

    def __init__(self, text: str, frame: int):
        super().__init__(text)
        self.frame = int(frame)
