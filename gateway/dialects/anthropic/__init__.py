"""Anthropic Messages: spoken to backends, and by callers."""
