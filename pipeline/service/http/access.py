"""Who may ask for what: the token, the names that the server goes by, and the origins of browsers' pages."""

import hmac
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pipeline.errors import ConfigError

__all__ = ("Access", "TOKEN_VARIABLE", "is_loopback", "read_token")

TOKEN_VARIABLE = "PIPELINE_TOKEN"
_BITS = 128
_DISTINCT = 8
_WAY_OUT = 'make one with `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Access:
    """The rules for one server. ``hosts`` are names with their ports; without a ``token`` nobody needs one.

    Who has the ``reading`` token only may look and change nothing.
    """

    hosts: frozenset[str]
    token: str = field(default="", repr=False)
    reading: str = field(default="", repr=False)

    @classmethod
    def to(cls, host: str, port: int, token: str = "", names: Iterable[str] = (), reading: str = "") -> "Access":
        """Return the rules for a server at an address; ``names`` are others that it goes by, with or without a port."""
        local = ("127.0.0.1", "localhost", "::1") if is_loopback(host) or _is_any(host) else ()
        known = {host, *names, *local}
        hosts = {_with_port(name, port) for name in known}
        # Browsers leave out the port that a scheme has by itself; a name given as it is may be behind a proxy.
        hosts |= {name.lower() for name in names} | ({_bracketed(name) for name in known} if port == 80 else set())
        return cls(frozenset(hosts), token, reading)

    def knows_host(self, host: str | None) -> bool:
        """Tell whether a request was sent to a name of ours: a page elsewhere can't rebind its name to us."""
        return host is not None and host.lower() in self.hosts

    def knows_origin(self, origin: str | None, host: str) -> bool:
        """Tell whether the page that sends a request is one of ours; programs send no origin."""
        if origin is None:
            return True
        scheme, _, name = origin.lower().partition("://")
        return scheme in _DEFAULT_PORTS and name == host.lower()

    def knows_token(self, authorization: str | None) -> bool:
        """Tell whether a request brings the token, in a time that does not depend on how much of it is right."""
        return not self.token or _brings(self.token, authorization)

    def may_look(self, authorization: str | None) -> bool:
        """Tell whether a request brings one of the tokens, in the same way."""
        looks = bool(self.reading) and _brings(self.reading, authorization)
        return self.knows_token(authorization) or looks


def _brings(token: str, authorization: str | None) -> bool:
    scheme, _, given = (authorization or "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    return same and scheme.lower() == "bearer"


def read_token(
    path: str | None, environ: Mapping[str, str] = os.environ, option: str = "--token-file"
) -> tuple[str, str]:
    """Return the token from a file, or from the environment, or none; and a warning, if there is something to say.

    :raises ConfigError: when the file can't be read, or when the token could be guessed.
    """
    warning = ""
    if path is None:
        token, where = environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if TOKEN_VARIABLE not in environ:
            return "", ""
    else:
        where = path
        try:
            token = Path(path).read_text(encoding="utf-8")
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{option} {path}: can't be read: {error}") from None
        if mode & 0o077:
            warning = f"{path}: others on this machine can read the token (mode {mode:04o}); chmod 600 it"
    token = token.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(f"{where}: a token is one line of printable ASCII; {_WAY_OUT}")
    if len(token) * _bits(token) < _BITS or len(set(token)) < _DISTINCT:
        raise ConfigError(f"{where}: the token could be guessed, it has less than {_BITS} bits; {_WAY_OUT}")
    return token, warning


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _bits(token: str) -> float:
    """Return the bits that a character stands for at most."""
    return math.log2(16 if re.fullmatch(r"[0-9a-fA-F]+", token) else 64)


def _with_port(name: str, port: int) -> str:
    name = name.lower()
    return name if re.search(r"(^[^:]+|\]):\d+$", name) else f"{_bracketed(name)}:{port}"


def _bracketed(name: str) -> str:
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
