"""How gunicorn is told to run us."""

from __future__ import annotations

import socket

import pytest

from gateway.app.arbiter import MARGIN_S, GatewayApplication
from gateway.app.launch import Inherited, Launch, LogLoss
from gateway.app.source import new_registry
from gateway.settings import Settings
from gateway.telemetry import LineWriter

GRACE_BEYOND_THE_DRAIN_S = 15
"""What the chart adds to the drain: a pod that needs longer is killed."""


@pytest.mark.parametrize(("drain", "expected"), [("0", 0), ("500ms", 1), ("570s", 570), ("10m", 600)])
def test_gunicorn_waits_as_long_as_the_drain(drain: str, expected: int) -> None:
    """Its graceful timeout is the drain, in whole seconds; workers end themselves then, and have a margin to do so."""
    settings = Settings.load(drain_s=drain)
    inherited = Inherited(
        settings=settings, registry=new_registry(settings), writer=LineWriter(max_lines=1), log_loss=LogLoss()
    )
    with socket.socket() as data, socket.socket() as management:
        launch = Launch(inherited=inherited, data_listener=data, management_listener=management)
        assert GatewayApplication(launch).cfg.graceful_timeout == expected
    inherited.writer.close()
    assert MARGIN_S < GRACE_BEYOND_THE_DRAIN_S
