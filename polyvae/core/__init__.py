"""Parts that all folders use and that need no other library."""
