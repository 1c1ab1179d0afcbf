"""Places for claims, which are data too large for a broker. They import only core."""
