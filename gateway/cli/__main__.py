"""``python -m gateway.cli``: the same as ``llm-gateway``."""

from gateway.cli import main

main()
