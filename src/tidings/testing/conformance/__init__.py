"""Suites that every adapter passes: what a port promises, as tests. Subclass one and give it its fixtures."""
