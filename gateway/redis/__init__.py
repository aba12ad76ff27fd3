"""Our lane to Redis: one connection per server, everything of one tick in one write; and the embedded server."""
