"""Brokers: adapters that move messages between processes. They import only core."""
