"""The page in headless Chromium: two devices, one signs the other out; both colour schemes."""

import os
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django_rust_sessions.devices.models import Device

sys.path.append(str(Path(__file__).parents[2] / "examples" / "shared_login"))
from browsers import Chromium
from pictures import WIDTH_AND_UNLABELLED, WORST_CONTRAST

FOLDER = Path(os.environ["DEVICES_FOLDER"])
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
)


@pytest.fixture
def chromium():
    with Chromium() as chromium:
        yield chromium


def enter(browser, address, **options):
    page = browser.new_context(**options).new_page()
    page.goto(f"{address}/sync/enter/?name=ada")
    page.goto(f"{address}/devices/")
    return page


def names(page):
    return page.locator(".device-name").all_inner_texts()


@pytest.mark.django_db(transaction=True)
def test_two_devices(chromium, live_server, settings):
    settings.SESSION_ENGINE = "django_rust_sessions.backends.db"
    User.objects.create_user("ada", password="tea")
    address = live_server.url
    phone = enter(
        chromium.browser, address, user_agent=PHONE, viewport={"width": 360, "height": 700}
    )
    third = enter(chromium.browser, address)
    here = enter(chromium.browser, address, color_scheme="light")

    assert names(here)[0] == names(third)[0]
    assert sorted(names(here)) == sorted([names(third)[0]] * 2 + ["Safari on iPhone"])
    for scheme in ("light", "dark"):
        here.emulate_media(color_scheme=scheme)
        here.reload()
        found = here.evaluate(WORST_CONTRAST)
        assert found["tooLow"] is None
        assert (
            found["background"]
            == {"light": "rgb(246, 245, 242)", "dark": "rgb(18, 19, 21)"}[scheme]
        )
        here.screenshot(path=FOLDER / f"devices-{scheme}.png")
    phone.reload()
    assert phone.evaluate(WIDTH_AND_UNLABELLED) == [360, []]
    phone.screenshot(path=FOLDER / "devices-phone.png")

    # By the keyboard: the button's name says which device it is for.
    button = here.get_by_role("button", name="Sign out Safari on iPhone", exact=True)
    button.focus()
    with here.expect_navigation():
        here.keyboard.press("Enter")
    assert here.get_by_role("status").inner_text() == "The device is signed out."
    assert "Safari on iPhone" not in names(here)
    phone.goto(f"{address}/devices/")
    assert "/admin/login/" in phone.url

    here.get_by_role("button", name="Sign out everywhere else", exact=True).click()
    here.get_by_text("You are signed in nowhere else.").wait_for()
    third.goto(f"{address}/sync/whoami/")
    assert third.inner_text("body") == "AnonymousUser"

    here.get_by_role("button", name="Sign out Chrome on Linux", exact=True).click()
    here.wait_for_url("**/admin/login/**")
    assert not Device.objects.exists()
