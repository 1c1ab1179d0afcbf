"""Django: `atomic()` commits the order and its event; handlers run in a process apart."""
