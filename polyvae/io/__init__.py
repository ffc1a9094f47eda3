"""Files to `Trajectory` and back. The numerical core never imports this package."""
