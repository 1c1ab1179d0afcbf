"""Operating tidings: the command line and the doctor."""
