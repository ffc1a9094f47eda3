"""The error type for input that the caller can mend."""


class InputError(ValueError):
    """Data or arguments that cannot be used; the message says what was required, what came, what to do."""


class FrameError(InputError):
    """One frame, number `frame`, that cannot be used where those before it can."""

    def __init__(self, text: str, frame: int):
        super().__init__(text)
        self.frame = int(frame)

    def __reduce__(self):  # between processes
        return type(self), (str(self), self.frame)


def one_line(error: BaseException) -> str:
    """The message of an error, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
