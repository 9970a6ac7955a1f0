"""What every page shows: who rendered it, which session it read, and where the other server is."""

import django
from django.conf import settings


def door(request):
    # Under the host name that the browser used: to it, 127.0.0.1 and localhost are two hosts.
    hostname = request.get_host().partition(":")[0]
    key = request.session.session_key or ""
    return {
        "server_name": f"Django {django.VERSION[0]}.{django.VERSION[1]} · Python",
        "rust_url": f"http://{hostname}:{settings.DEMO_RUST_PORT}",
        "kept": settings.DEMO_KEPT,
        "cookie_name": settings.SESSION_COOKIE_NAME,
        "short_session_key": f"{key[:4]}…{key[-4:]}" if key else "",
        "cart_size": len(request.session.get("cart", [])),
    }
