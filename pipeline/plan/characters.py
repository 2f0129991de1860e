"""The text of a YAML file before YAML is read: bytes to characters, and `${...}` kept out of YAML's way."""

import re

__all__ = ("MAX_BYTES", "LINE", "CharacterError", "decode", "end_of", "shield", "unshield")

MAX_BYTES = 1 << 20
LINE = re.compile(r"\r\n|\r|\n")
"""What ends a line."""

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# YAML's own set; the last two are line breaks to YAML 1.1 only, and would move every line number behind them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff\u2028\u2029]")
_REFERENCE = re.compile(r"\$\{(?:env|file):[^}\n\r\"'\\]*\}")
_SHIELD = 0x10FF00
_SHIELDED = {ord(char): _SHIELD + ord(char) for char in "{}[],:# "}
_UNSHIELD = {code: chr(code - _SHIELD) for code in _SHIELDED.values()}


class CharacterError(ValueError):
    """Raised where bytes are no text, or text is no YAML; with the line and column, from 1."""

    def __init__(self, place: tuple[int, int], text: str) -> None:
        super().__init__(text)
        self.place = place


def decode(content: bytes | str) -> str:
    """Return the characters of a file, without a byte order mark.

    :raises CharacterError: when it is too large, in another encoding than UTF-8 or UTF-16, or no YAML may have them.
    """
    if len(content) > MAX_BYTES:
        raise CharacterError((1, 1), f"larger than {MAX_BYTES >> 20} MiB")
    text = content.removeprefix("\ufeff") if isinstance(content, str) else _decoded(content)
    if bad := _FORBIDDEN.search(text):
        raise CharacterError(end_of(text[: bad.start()]), f"character U+{ord(bad[0]):04X} is not allowed in YAML")
    return text


def end_of(text: str) -> tuple[int, int]:
    """Return the line and column just behind a text, from 1."""
    lines = LINE.split(text)
    return len(lines), len(lines[-1]) + 1


def shield(text: str) -> str:
    """Return the text with what is special to YAML within ``${...}`` replaced, one character for one.

    ``{path: ${env:DIR}}`` should mean what it looks like, but the braces would end the plain scalar. Every column stays
    where it is.
    """
    if any(chr(code) in text for code in _UNSHIELD):
        return text
    return _REFERENCE.sub(lambda match: match[0].translate(_SHIELDED), text)


def unshield(text: str) -> str:
    """Return what a text was before `shield`."""
    return text.translate(_UNSHIELD)


def _decoded(content: bytes) -> str:
    mark, encoding = next(((bom, name) for bom, name in _BOMS if content.startswith(bom)), (b"", "utf-8"))
    body = content[len(mark) :]
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        place = end_of(body[: error.start].decode(encoding, "replace"))
        raise CharacterError(place, f"not {encoding.upper()[:6].rstrip('-')}: {error.reason}") from None
