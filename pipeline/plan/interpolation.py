"""``${env:NAME}``, ``${env:NAME:-default}`` and ``${file:path}`` in the texts of a document, and what to hide.

Put in after parsing and never parsed again: a value can't add keys, whatever is in it.
"""

import os
import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as FilePath
from urllib.parse import unquote

from pipeline.plan.document import Document
from pipeline.plan.scalars import INVALID

__all__ = ("HIDDEN", "Secrets", "hide", "interpolate")

HIDDEN = "***"
"""What is shown instead of a secret."""

# A secret of fewer characters would take whole words out of every text that happens to have them.
_SHORTEST = 8
_USERINFO = re.compile(r"://([^/@:\s]*):([^/@\s]+)@")
_MAX_FILE = 1 << 16
_REFERENCE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}|\$\{")
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Secrets:
    """The values that came from the environment and from files, kept to be hidden."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, value: str) -> None:
        """Remember a value, its lines, the password in it, and the ways in which errors and JSON write each."""
        import json  # only a config with references needs it

        for text in (value, *value.splitlines(), *_passwords(value)):
            self._values |= {text, repr(text)[1:-1], json.dumps(text)[1:-1]}

    def mask(self, text: str) -> str:
        """Return a text with every secret of 8 and more characters hidden."""
        found = sorted((value for value in self._values if len(value) >= _SHORTEST and value in text), key=len)
        for value in reversed(found):
            text = text.replace(value, HIDDEN)
        return text


def interpolate(document: Document, environ: Mapping[str, str], *, confined: bool = False) -> Secrets:
    """Replace the references in all texts of a document; what can't be is among its ``refused``.

    ``confined`` documents come from strangers: a reference in one is a problem.
    """
    secrets = Secrets()
    for path, node in document.root.walk() if document.root else ():
        if isinstance(node.value, str) and "${" in node.value:
            text = _Text(environ, confined)
            try:
                node.value = _REFERENCE.sub(text.value_of, node.value)
            except _RefusedError as refused:
                document.refused.append((path, " ".join(str(refused).split())))
                node.value = INVALID
            node.raw = ""  # its characters no longer stand where they are written
            node.secrets = tuple(text.secrets)
            for value in text.secrets:
                secrets.add(value)
    return secrets


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return a text with these values hidden, of whatever length: for a text that shows the value of their key."""
    for value in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _passwords(value: str) -> Iterator[str]:
    """Yield the password of a URL, as it is written and as it is meant, and what a header makes of it."""
    for match in _USERINFO.finditer(value):
        user, password = match[1], match[2]
        yield from {password, unquote(password)}
        yield b2a_base64(f"{unquote(user)}:{unquote(password)}".encode(), newline=False).decode()


class _RefusedError(Exception):
    pass


class _Text:
    """One text with references."""

    def __init__(self, environ: Mapping[str, str], confined: bool) -> None:
        self._environ = environ
        self._confined = confined
        self.secrets: list[str] = []

    def value_of(self, match: re.Match[str]) -> str:
        """Return what a reference stands for."""
        if match[1]:
            return match[1]
        reference = match[2]
        if reference is None:
            raise _RefusedError("'${' without its '}'; write $${ for the two characters")
        written = f"${{{reference}}}"
        if self._confined:
            raise _RefusedError(
                f"'{written}' is not replaced in a config from elsewhere; write ${written} for the text"
            )
        if reference.startswith("file:"):
            return self._keep(_contents(reference.removeprefix("file:")))
        env = _ENV.fullmatch(reference)
        if env is None:
            raise _RefusedError(_unknown(reference))
        if env[1] in self._environ:
            return self._keep(self._environ[env[1]])
        if env[2] is None:
            raise _RefusedError(
                f"environment variable {env[1]} is not set; set it, or write ${{env:{env[1]}:-default}}"
            )
        return env[2]

    def _keep(self, value: str) -> str:
        if "\0" in value or not _encodable(value):
            raise _RefusedError("the value has characters that no text may have")
        self.secrets.append(value)
        return value


def _unknown(reference: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(:-.*)?", reference):
        return f"'${{{reference}}}' is not known; write ${{env:{reference}}}, or $${{{reference}}} for the text itself"
    return f"'${{{reference}}}' is not known; expected ${{env:NAME}}, ${{env:NAME:-default}} or ${{file:path}}"


def _contents(path: str) -> str:
    try:
        with FilePath(path).open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise _RefusedError(f"file '{path}' can't be read: {reason}") from None
    if len(content) > _MAX_FILE:
        raise _RefusedError(f"file '{path}' is larger than {_MAX_FILE >> 10} KiB")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _RefusedError(f"file '{path}' is not UTF-8 text") from None


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of the environment that are no text
        return False
    return True
