"""Every official client over every provider, feature by feature: what ``docs/dialects.md`` tells in its tables."""
