"""User models of a site; the one that AUTH_USER_MODEL names is there."""
