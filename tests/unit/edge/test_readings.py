"""Bodies that were read before."""

from __future__ import annotations

from gateway.dialects.openai.request import read_chat_request
from gateway.edge.readings import BODY_BYTES_MAX, KEPT_S, READINGS_MAX, Readings

BODY = b'{"model":"chat","messages":[{"role":"user","content":"hi"}]}'
REQUEST = read_chat_request(BODY, 10)


def test_a_body_is_known_to_the_tenant_that_sent_it() -> None:
    """Byte for byte, and to nobody else."""
    readings = Readings()
    assert readings.find("acme", BODY, 1.0) is None
    readings.keep("acme", BODY, REQUEST, 1.0)
    assert readings.find("acme", bytes(bytearray(BODY)), 1.0) is REQUEST
    assert readings.find("beta", BODY, 1.0) is None
    assert readings.find("acme", BODY + b" ", 1.0) is None


def test_the_first_leave_first() -> None:
    """Number and size are bounded; what is kept twice is there once, and as new as the second time."""
    readings = Readings()
    readings.keep("acme", b"again", REQUEST, 1.0)
    for number in range(READINGS_MAX):
        readings.keep("acme", b"%d" % number, REQUEST, 1.0)
        readings.keep("acme", b"%d" % number, REQUEST, 1.0)
        readings.keep("acme", b"again", REQUEST, 1.0)
    assert readings.find("acme", b"0", 1.0) is None
    assert readings.find("acme", b"1", 1.0) is REQUEST
    assert readings.find("acme", b"again", 1.0) is REQUEST
    for size, expected in ((BODY_BYTES_MAX, REQUEST), (BODY_BYTES_MAX + 1, None)):
        readings.keep("acme", b"x" * size, REQUEST, 1.0)
        assert readings.find("acme", b"x" * size, 1.0) is expected


def test_a_body_is_known_for_its_time() -> None:
    """Whether it is asked for or not: what comes later drives it out."""
    readings = Readings()
    readings.keep("acme", BODY, REQUEST, 1.0)
    assert readings.find("acme", BODY, KEPT_S) is REQUEST
    assert readings.find("acme", BODY, KEPT_S + 1.0) is None
    readings.keep("acme", b"later", REQUEST, KEPT_S + 1.0)
    assert list(readings._kept) == [("acme", b"later")]
