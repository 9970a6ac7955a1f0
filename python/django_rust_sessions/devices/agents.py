"""What a user sees of a User-Agent header: a browser and a system, or nothing that is not known."""

from django.utils.translation import gettext as _

# The first that is in the header: Edge says that it is Chrome, and Chrome that it is Safari.
BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Vivaldi/": "Vivaldi",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "Chrome/": "Chrome",
    "Chromium/": "Chromium",
    "CriOS/": "Chrome",
    "Safari/": "Safari",
    "curl/": "curl",
    "python-requests/": "python-requests",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "CrOS": "ChromeOS",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "Macintosh": "macOS",
    "Linux": "Linux",
}


def summarise(agent: str) -> str:
    browser = next((name for part, name in BROWSERS.items() if part in agent), None)
    system = next((name for part, name in SYSTEMS.items() if part in agent), None)
    if browser and system:
        return _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or system or _("Unknown device")


def clean(agent: str, size: int) -> str:
    """Without control characters and what turns text around, and no longer than the column."""
    text = agent[: 4 * size]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:size]
