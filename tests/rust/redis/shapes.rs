//! Settings for each shape of Redis, and talking to its servers behind the cache's back.

use ::redis::{Connection, FromRedisValue, RedisResult};
use django_sessions::caches::redis::{RedisCache, RedisSettings};

use super::Servers;

pub(crate) fn one(servers: &Servers) -> RedisSettings {
    RedisSettings::new(servers.text("redis", "url"))
}

pub(crate) fn replicas(servers: &Servers) -> RedisSettings {
    RedisSettings::new(servers.text("redis_replicas", "urls"))
}

pub(crate) fn sentinel(servers: &Servers) -> RedisSettings {
    sentinel_of(servers, "redis_sentinel")
}

pub(crate) fn sentinel_of(servers: &Servers, name: &str) -> RedisSettings {
    let mut settings = RedisSettings::new("redis://mymaster/0");
    let ports = &servers.numbers(name, "ports")[2..];
    settings.sentinels = ports.iter().map(|port| ("127.0.0.1".to_owned(), *port as u16)).collect();
    settings
}

pub(crate) fn sentinel_ports(servers: &Servers) -> Vec<u32> {
    servers.numbers("redis_sentinel", "ports")[2..].to_vec()
}

pub(crate) fn cluster(servers: &Servers) -> RedisSettings {
    cluster_of(servers, "redis_cluster")
}

pub(crate) fn cluster_of(servers: &Servers, name: &str) -> RedisSettings {
    RedisSettings { cluster: true, ..RedisSettings::new(servers.text(name, "urls")) }
}

pub(crate) async fn open(settings: &RedisSettings) -> RedisCache {
    RedisCache::open(settings).await.unwrap()
}

/// A connection of the test's own.
pub(crate) fn direct(port: u32) -> RedisResult<Connection> {
    ::redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_connection()
}

/// What a server answers to a line.
pub(crate) fn say<T: FromRedisValue>(port: u32, line: &str) -> T {
    say_words(port, &line.split(' ').collect::<Vec<_>>())
}

/// What a server answers to words that may have spaces in them.
pub(crate) fn say_words<T: FromRedisValue>(port: u32, words: &[&str]) -> T {
    ::redis::cmd(words[0]).arg(&words[1..]).query(&mut direct(port).unwrap()).unwrap()
}

/// How often a server was asked for a value.
pub(crate) fn gets(port: u32) -> u64 {
    gets_of(&format!("redis://127.0.0.1:{port}"))
}

pub(crate) fn gets_of(url: &str) -> u64 {
    let mut connection = ::redis::Client::open(url).unwrap().get_connection().unwrap();
    let stats: String = ::redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    let calls = stats.split_once("cmdstat_get:calls=").map(|(_, rest)| rest.split(',').next().unwrap());
    calls.map_or(0, |calls| calls.parse().unwrap())
}
