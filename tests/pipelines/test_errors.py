"""What text may go into a manifest: one line, the same everywhere, and no secret."""

from __future__ import annotations

import errno
import string

import pytest
from av.error import FFmpegError, err_check
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import clean_detail, nearest, raise_unanswered, redact

word = st.text(string.ascii_letters + string.digits + "-._~!$*+=:", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b[0;31mERROR:\x1b[0m gone", "ERROR: gone"),
        ("one\ntwo\r\n\tthree\u2028four", "one two three four"),
        ("  padded  ", "padded"),
        ("open /home/me/work/a b/clip.mp4 failed", "open a b/clip.mp4 failed"),
        ("open '/home/me/work/clip.mp4'", "open 'clip.mp4'"),
        ("<Thing object at 0x7f00deadbeef>", "<Thing object at >"),
        ("decoder @ 0x55aa: broken", "decoder: broken"),
        ("GET http://host/a/b?x=1", "GET http://host/a/b?x=1"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        (KeyError("x"), "'x'"),
        ("", ""),
    ],
)
def test_details_are_one_plain_line(text: object, clean: str) -> None:
    assert clean_detail(text) == clean


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("http://me:secret@proxy:8080/x", "http://***@proxy:8080/x"),
        ("socks5://me:s@cret@proxy", "socks5://***@proxy"),
        ("via 'http://me:secret@proxy'", "via 'http://***@proxy'"),
        (
            "s3://b/k?X-Amz-Signature=abc&X-Amz-Date=1",
            "s3://b/k?X-Amz-Signature=***&X-Amz-Date=***",
        ),
        ("http://h/v?id=5&token=abc&n=1", "http://h/v?id=5&token=***&n=1"),
        ("mail me@home.org", "mail me@home.org"),
        ("http://h/@user/video", "http://h/@user/video"),
    ],
)
def test_credentials_are_taken_out_of_addresses(text: str, safe: str) -> None:
    assert redact(text) == safe


@given(st.text(max_size=600), st.integers(10, 300))
def test_any_text_becomes_one_encodable_line_within_the_limit(text: str, limit: int) -> None:
    line = clean_detail(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    line.encode()


@given(word, word, word)
def test_no_password_of_an_address_survives(user: str, password: str, host: str) -> None:
    secret = f"Zq{password}qZ"
    text = clean_detail(f"proxy http://{user}:{secret}@{host}/x failed")
    assert secret not in text


def test_the_nearest_word_is_offered_only_when_it_is_near() -> None:
    assert nearest("landmark", ["landmarks", "shard"]) == "; did you mean 'landmarks'?"
    assert nearest("zzz", ["landmarks", "shard"]) == ""
    assert nearest("x", []) == ""


@pytest.mark.parametrize(("number", "raised"), [(errno.EIO, True), (errno.ENOENT, False)])
def test_a_disk_that_does_not_answer_is_not_the_file_s_fault(number: int, raised: bool) -> None:
    with pytest.raises(FFmpegError) as caught:
        err_check(-number)
    if not raised:
        raise_unanswered(caught.value)
        raise_unanswered(ValueError())
        return
    with pytest.raises(OSError, match="Input/output") as plain:
        raise_unanswered(caught.value)
    assert not isinstance(plain.value, FFmpegError), "else who looks for damage takes it for that"
