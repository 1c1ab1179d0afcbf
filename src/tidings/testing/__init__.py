"""What tests need: given/when/then, harness, clock, broken networks, simulation, histories and their checker."""
