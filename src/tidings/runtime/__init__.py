"""The runtime: async, the only folder that starts tasks and touches clock and randomness."""
