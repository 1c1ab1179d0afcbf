"""What tests need: given/when/then, harness, virtual clock, simulation, histories and the checker that judges them."""
