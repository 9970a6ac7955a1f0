"""Django's Redis cache on a Redis Cluster, as a project may write one: Django itself has none."""

import redis as redis_client
from django.core.cache.backends import redis
from django.utils.functional import cached_property


class ClusterClient(redis.RedisCacheClient):
    @cached_property
    def cluster(self):
        return redis_client.RedisCluster.from_url(self._servers[0])

    def get_client(self, key=None, *, write=False):
        return self.cluster


class RedisCache(redis.RedisCache):
    def __init__(self, server, params):
        super().__init__(server, params)
        self._class = ClusterClient
