"""What a check says, and the knock at a port."""

from __future__ import annotations

from pipelines.doctor.verdict import Verdict, address, knock


def test_a_line_tells_no_secret() -> None:
    line = Verdict("fail", "proxy", "socks5://me:secret@host:1\nis down", "see ?token=abc").line()
    assert line == "fail  proxy          socks5://***@host:1 is down; see ?token=***"


def test_addresses(port: int, closed: int) -> None:
    assert address("host:8080") == ("host", 8080)
    assert address("[::1]:99") == ("::1", 99)
    assert address("host") is None
    assert address("host:port") is None
    assert knock("127.0.0.1", port) == ""
    assert "refused" in knock("127.0.0.1", closed)
