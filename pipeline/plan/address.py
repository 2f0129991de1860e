"""Addresses that are posted to: checked when a config is loaded, and shown without what may be a secret in them."""

from binascii import b2a_base64
from urllib.parse import unquote, urlsplit

from msgspec import Struct

__all__ = ("Address", "parse_url")

_PORTS = {"http": 80, "https": 443}


class Address(Struct, frozen=True):
    """Where to post to. ``authorization`` is the value of that header, made of the user and password of the URL."""

    host: str
    port: int
    tls: bool
    target: str
    authorization: str = ""

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def parse_url(text: str) -> Address:
    """Return the address in a URL.

    :raises ValueError: when it is none that can be posted to; does not quote it, because it may hold a secret.
    """
    if any(ord(char) <= 32 or ord(char) > 126 for char in text):
        raise ValueError("expected a URL without spaces, control characters and letters beyond ASCII")
    expected = "expected a URL that begins with http:// or https:// and a host"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in _PORTS or not host or port == 0:
        raise ValueError(expected)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b2a_base64(pair.encode(), newline=False).decode()}"
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    return Address(host, port or _PORTS[parts.scheme], parts.scheme == "https", target, authorization)
