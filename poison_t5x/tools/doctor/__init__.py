"""`poison-t5x doctor`: what is installed, what the machine has, whether a gin file goes with it."""
