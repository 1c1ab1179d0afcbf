"""Pure core: no I/O, no clock, no event loop. Everything here can be tested by calling it."""
