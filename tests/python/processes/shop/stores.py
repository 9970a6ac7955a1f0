"""The engines of this site, and how their use is checked: each session holds its own key."""

from django_rust_sessions.backends import cache, db

STORES = {"cache": cache.SessionStore, "db": db.SessionStore}


def new(store_class, name):
    store = store_class()
    store.create()
    store["name"] = name
    store["key"] = store.session_key
    store["count"] = 0
    store.save()
    return store.session_key


def use(store_class, key, name):
    """Once more; an error if it is not what was left there."""
    store = store_class(key)
    found = {item: store.get(item) for item in ("name", "key")}
    if found != {"name": name, "key": key}:
        raise AssertionError(f"{key} of {name} holds {found}")
    store["count"] += 1
    store.save()
    return store["count"]


async def ause(store_class, key, name):
    store = store_class(key)
    found = {item: await store.aget(item) for item in ("name", "key")}
    if found != {"name": name, "key": key}:
        raise AssertionError(f"{key} of {name} holds {found}")
    await store.aset("count", await store.aget("count") + 1)
    await store.asave()
    return await store.aget("count")
