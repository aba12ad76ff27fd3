"""What a request costs, measured beside nginx and Envoy in the same run: ``python -m bench`` (``make bench``).

Only loopback, only processes started here, bounded in time. See ``bench/README.md`` for what is measured and how.
"""
