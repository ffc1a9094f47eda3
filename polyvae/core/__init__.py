"""Ground that all folders stand on and that needs no other library."""
