"""Addresses with passwords: what may be shown, what is refused, and whom a password is sent to."""

import os
import urllib.request

import pytest

from heterobench import addresses
from heterobench.errors import ConfigurationError, DataError, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://ana:pw@host:5000/a: refused", "at http://host:5000/a: refused"),
        ("https://token@host/a", "https://host/a"),
        ("postgresql+psycopg2://ana:p@w@host/db", "postgresql+psycopg2://host/db"),
        ("http://ana:p/w#d?x@host/a", "http://host/a"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b"),
        ("fetch@mnist and s3://bucket/path", "fetch@mnist and s3://bucket/path"),
        ("https://h/f?download=1&X-Amz-Signature=abc", "https://h/f?download=1&X-Amz-Signature=***"),
    ],
)
def test_what_is_shown_of_an_address(text, shown):
    assert without_credentials(text) == shown
    error = DataError(text)
    assert str(error) == shown
    assert repr(error) == f"DataError({shown!r})"


@pytest.mark.parametrize("url", ["http://a:b/S3c@h", "http://a:b#S3c@h", "http://a:b?S3c@h", "http://a:S3c@"])
def test_an_address_that_cannot_be_taken_apart_is_refused_unseen(url):
    with pytest.raises(ConfigurationError, match="SETTING") as caught:
        addresses.check("SETTING", url)
    assert "S3c" not in str(caught.value)


def test_user_and_password_become_a_header():
    # RFC 7617, section 2: the example
    url = "http://Aladdin:open%20sesame@host/x"
    assert addresses.apart(url) == ("http://host/x", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    assert addresses.apart("http://host/x") == ("http://host/x", "")


def test_loopback_needs_no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "inner.example")
    monkeypatch.setenv("NO_PROXY", "")
    addresses.connect_directly_to_this_machine()
    for host, direct in (("127.0.0.1", True), ("localhost", True), ("inner.example", True), ("other.example", False)):
        assert bool(urllib.request.proxy_bypass_environment(host)) is direct
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
