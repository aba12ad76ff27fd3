"""What a scenario makes of a request: its prompt and its parameters."""

from gateway.scenarios.render import render

__all__ = ["render"]
