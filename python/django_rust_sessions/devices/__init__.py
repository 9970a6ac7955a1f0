"""Where each user is signed in: a row per logged-in session, for every engine on a server.

Add "django_rust_sessions.devices" to INSTALLED_APPS and DevicesMiddleware right before Django's
SessionMiddleware. The functions are in `django_rust_sessions.devices.api`.
"""
