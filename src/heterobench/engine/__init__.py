"""Regimes: how rounds follow each other. Here: synchronous rounds with a server."""
