"""Our lane to Redis; in this version only the embedded server of a single replica."""
