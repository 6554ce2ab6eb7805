"""A request that is not done: which status, in which of OpenAI's words, and one sentence for a person."""

import contextlib
from collections.abc import Iterator

from moejax.errors import BadValue, Refused


class Declined(BadValue):
    """`status` of HTTP; `code` in one word, which the metrics count by; `param`: the field of the form it is about."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None):
        super().__init__(" ".join(message.split()))
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict:
        """As OpenAI's API says it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@contextlib.contextmanager
def field(param: str | None, code: str = "invalid_value") -> Iterator[None]:
    """What moejax refuses inside is the fault of this field."""
    try:
        yield
    except Declined:
        raise
    except Refused as error:
        raise Declined(400, code, str(error), param) from error


def stopping() -> Declined:
    """A server that was asked to stop takes nothing more."""
    return Declined(503, "stopping", "this server is stopping; what it had accepted before is still answered")
