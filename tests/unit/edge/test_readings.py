"""Bodies that were read before."""

from __future__ import annotations

from gateway.dialects.openai.request import read_chat_request
from gateway.edge.readings import BODY_BYTES_MAX, READINGS_MAX, Readings

BODY = b'{"model":"chat","messages":[{"role":"user","content":"hi"}]}'
REQUEST = read_chat_request(BODY, 10)


def test_a_body_is_known_to_the_tenant_that_sent_it() -> None:
    """Byte for byte, and to nobody else."""
    readings = Readings()
    assert readings.find("acme", BODY) is None
    readings.keep("acme", BODY, REQUEST)
    assert readings.find("acme", bytes(bytearray(BODY))) is REQUEST
    assert readings.find("beta", BODY) is None
    assert readings.find("acme", BODY + b" ") is None


def test_the_first_leave_first() -> None:
    """Number and size are bounded; what is kept twice is there once."""
    readings = Readings()
    for number in range(READINGS_MAX + 1):
        readings.keep("acme", b"%d" % number, REQUEST)
        readings.keep("acme", b"%d" % number, REQUEST)
    assert readings.find("acme", b"0") is None
    assert readings.find("acme", b"1") is REQUEST
    assert readings.find("acme", b"%d" % READINGS_MAX) is REQUEST
    for size, expected in ((BODY_BYTES_MAX, REQUEST), (BODY_BYTES_MAX + 1, None)):
        readings.keep("acme", b"x" * size, REQUEST)
        assert readings.find("acme", b"x" * size) is expected
