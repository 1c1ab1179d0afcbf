"""Stores: one folder for each database, found by entry point."""
