"""The gateway as a running thing: what is built from what, who starts it, and how it ends.

``serve`` is the process tree that ``llm-gateway serve`` runs; ``factory`` the same application for development servers.
"""
