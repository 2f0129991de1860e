"""URLs that are posted to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.address import parse_url


def test_an_address_is_host_port_and_path() -> None:
    address = parse_url("https://hooks.example/a/b?c=d#e")
    assert (address.host, address.port, address.tls, address.target) == ("hooks.example", 443, True, "/a/b?c=d")
    assert (address.authority, parse_url("http://h:9091").authority) == ("hooks.example", "h:9091")
    assert parse_url("http://[::1]:80/x").authority == "[::1]"
    assert parse_url("http://h").target == "/"


def test_user_and_password_go_into_a_header_and_are_not_shown() -> None:
    address = parse_url("http://me:p%40ss@h/secret-path?token=1")
    assert address.authorization == "Basic bWU6cEBzcw=="
    assert str(address) == "http://h"


@pytest.mark.parametrize(
    "text", ["", "h", "ftp://h", "http://", "http:///x", "http://h:x", "http://h:0", "http://h:99999", "http://[h"]
)
def test_what_can_not_be_posted_to_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a URL that begins with http"):
        parse_url(text)


@given(st.text(max_size=30), st.sampled_from(["\r\n", "\n", "\0", " ", "\x1b", "é"]), st.text(max_size=30))
def test_nothing_in_a_url_can_add_a_header(before: str, sign: str, after: str) -> None:
    with pytest.raises(ValueError):
        parse_url(f"http://h/{before}{sign}{after}")
