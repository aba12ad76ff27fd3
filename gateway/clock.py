"""The only module that tells the time.

Everything else receives a time or asks here, so that tests can see where time enters and pure modules stay pure.
"""

import time

monotonic = time.monotonic
"""Seconds since an arbitrary point, never going back; for durations and deadlines."""

wall = time.time
"""Seconds since the Unix epoch (UTC); for expiry, log timestamps and calendar windows."""
