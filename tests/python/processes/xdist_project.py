"""What a project's own tests look like, for pytest-xdist to share among processes."""

import os

import pytest
from django.contrib.auth.models import User
from shop.stores import STORES, new, use


@pytest.mark.django_db
@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("number", range(5))
def test_session_of_its_own(name, number):
    assert use(STORES[name], new(STORES[name], number), number) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("number", range(5))
def test_login_stays(client, name, number):
    assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == "2"
    User.objects.create_user("ada")
    first = client.get(f"/{name}/sync/enter/{number}").json()
    for count in range(1, 4):
        answer = client.get(f"/{name}/sync/more").json()
        assert (answer["user"], answer["session"]["name"]) == ("ada", str(number))
        assert answer["session"]["key"] == answer["session_key"] == first["session_key"]
        assert answer["session"]["count"] == count
