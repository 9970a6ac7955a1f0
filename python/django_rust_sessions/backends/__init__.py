"""Session engines, each named after the one of Django that it stands in for."""
