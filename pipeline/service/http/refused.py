"""The one way in which a request is not done: a code for programs, a reason for people, a status for HTTP."""

from collections.abc import Mapping

__all__ = ("RequestRefused",)


class RequestRefused(Exception):
    """Raised where what was asked for can't be done; 409 unless it says otherwise."""

    def __init__(
        self,
        code: str,
        reason: str,
        status: int = 409,
        headers: Mapping[str, str] | None = None,
        stage: str = "",
        letter: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.status = status
        self.headers = dict(headers or {})
        self.stage = stage
        self.letter = letter
