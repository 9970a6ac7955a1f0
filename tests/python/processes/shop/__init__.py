"""A small site that each server serves: /cache/... and /db/... keep their sessions there."""
