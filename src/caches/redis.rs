//! Redis or Valkey, as Django's `RedisCache` and django-redis use it (feature `redis`): one server, a primary with
//! replicas, Sentinel or Cluster, over TCP, UNIX sockets and TLS (feature `tls`).
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::caches::redis::{RedisCache, RedisSettings};
//! use django_sessions::caches::{Cache, KeyLayout};
//!
//! let cache = RedisCache::open(&RedisSettings::new("redis://127.0.0.1:6379/1")).await?;
//! let key = KeyLayout::default().make_key("visits");
//! assert!(cache.add(&key, b"1", Some(Duration::from_secs(60))).await?);
//! assert!(!cache.add(&key, b"2", None).await?, "taken");
//! # Ok(()) }
//! ```
//!
//! # TLS
//!
//! The feature `tls` speaks TLS through rustls. The cryptography is the one that the application installed in the process;
//! if there is none at the first connection, ring's is installed.
//!
//! # When servers fail
//!
//! Every command is tried once, and waits no longer than its limits say. Only if the connection turns out to be lost,
//! or the server to be the primary no more, another one is made (with Sentinel: to the server that the sentinels name
//! now) and the command is sent once more. A replica that fails is replaced by the primary, without a wait.
//!
//! A Cluster's redirections are followed within the limits. When a limit ran out, the other servers are asked whether a
//! replica took over (not for a connection of your own, see [`RedisCache::cluster`]).

mod address;
mod cluster;
mod connection;
mod listing;
mod sentinel;
mod settings;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{Cmd, ExistenceCheck, FromRedisValue, Pipeline, Value, cmd, from_redis_value};
use sha1::{Digest, Sha1};

pub use self::settings::{CertReqs, Location, RedisSettings, SentinelSettings};

use self::address::Address;
use self::cluster::Cluster;
use self::connection::{Link, Request, Target, explain};
use self::listing::Wanted;
use super::{Cache, CacheError, Entry, TimeLimits};
use crate::crypto::hex;

/// One step for Redis, as the Python package has it. The whole value would say the same as its digest, and be sent twice.
const SWAP: &str = r#"local now = redis.call("GET", KEYS[1])
if not now or redis.sha1hex(now) ~= ARGV[1] then return now end
if ARGV[4] and tonumber(ARGV[4]) <= 0 then
    redis.call("DEL", KEYS[1])
else
    redis.call("SET", KEYS[1], ARGV[2], unpack(ARGV, 3))
end
return 1"#;

/// A Redis: one connection to each of its servers, over which all requests talk at once.
///
/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct RedisCache {
    servers: Arc<Servers>,
}

struct Servers {
    primary: Primary,
    replicas: Vec<Link>,
    /// Replicas take turns.
    turn: AtomicUsize,
}

enum Primary {
    Link(Link),
    Manager(ConnectionManager),
    Cluster(Arc<Cluster>),
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.servers.primary {
            Primary::Link(_) | Primary::Manager(_) => "primary",
            Primary::Cluster(_) => "cluster",
        };
        f.debug_tuple("RedisCache").field(&kind).finish_non_exhaustive()
    }
}

impl RedisCache {
    /// Connects as the settings say. Replicas are connected when they are needed first; until then, and while they
    /// cannot be reached, the primary is read.
    ///
    /// # Errors
    /// [`CacheError::Settings`] if they cannot be used, and each other [`CacheError`] if the server, the primary or the
    /// Cluster does not answer within the limits.
    pub async fn open(settings: &RedisSettings) -> Result<Self, CacheError> {
        let urls = settings.location.urls();
        let [first, others @ ..] = &*urls else {
            return Err(CacheError::Settings("Redis needs a `location`".to_owned()));
        };
        if settings.cluster {
            if !settings.sentinels.is_empty() {
                return Err(CacheError::Settings(
                    "a Redis is a `cluster` or has `sentinels`, not both".to_owned(),
                ));
            }
            let cluster = Cluster::open(settings, &urls).await?;
            return Ok(Self::of(Primary::Cluster(Arc::new(cluster)), Vec::new()));
        }
        let (primary, mut replicas) = if settings.sentinels.is_empty() {
            let mut replicas = Vec::new();
            for url in others {
                replicas.push(connection::server(Address::read(url, settings)?).await?);
            }
            (connection::server(Address::read(first, settings)?).await?, replicas)
        } else {
            let (primary, replica) = connection::sentinels(settings, first).await?;
            (primary, vec![replica])
        };
        if !settings.read_from_replicas {
            replicas.clear();
        }
        match primary.query(Request::One(&cmd("PING"))).await {
            // Who may not say this may say the rest.
            Ok(_) => {}
            Err(CacheError::Login { source, .. }) if source.code() == Some("NOPERM") => {}
            Err(error) => return Err(error),
        }
        Ok(Self::of(Primary::Link(primary), replicas))
    }

    /// Connects to an address as in Django's `LOCATION`: `redis://user:password@host:6379/1`, `unix:///path?db=1`.
    ///
    /// # Errors
    /// When the address cannot be read, or no Redis answers there within the limit.
    pub async fn connect(url: &str, limits: TimeLimits) -> Result<Self, CacheError> {
        let mut settings = RedisSettings::new(url);
        settings.socket_connect_timeout = Some(limits.connect.as_secs_f64());
        settings.socket_timeout = Some(limits.response.as_secs_f64());
        Self::open(&settings).await
    }

    /// A cache over a connection that the caller has, with the time limits and the retries that it has.
    pub fn new(connection: ConnectionManager) -> Self {
        Self::of(Primary::Manager(connection), Vec::new())
    }

    /// A cache over the caller's own connection to a Cluster, with the time limits and the retries that it has. It follows
    /// a failover when a server ends its connections or sends it elsewhere; that of [`open`](Self::open) also when a server
    /// hangs.
    pub fn cluster(connection: ClusterConnection) -> Self {
        Self::of(Primary::Cluster(Arc::new(Cluster::of(connection))), Vec::new())
    }

    /// A cache on the server that the caller's own client of sentinels finds, which is asked anew when that is gone.
    pub fn sentinel(client: SentinelClient, limits: TimeLimits) -> Self {
        let target = Target::Sentinel(tokio::sync::Mutex::new(client));
        Self::of(Primary::Link(Link::new(target, limits)), Vec::new())
    }

    fn of(primary: Primary, replicas: Vec<Link>) -> Self {
        Self { servers: Arc::new(Servers { primary, replicas, turn: AtomicUsize::new(0) }) }
    }

    /// Runs a command where values are written.
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        self.query_told(command).await.map(|(answer, _)| answer)
    }

    /// The same, and whether the command may have arrived twice. Of a Cluster, where the redis crate sends again, nobody
    /// knows.
    async fn query_told<T: FromRedisValue>(&self, command: &Cmd) -> Result<(T, bool), CacheError> {
        let (answer, is_second) = match &self.servers.primary {
            Primary::Link(link) => link.query(Request::One(command)).await?,
            Primary::Manager(manager) => {
                let mut manager = manager.clone();
                match command.query_async(&mut manager).await {
                    // As in `Link::query`; the manager makes another connection.
                    Err(error) if error.is_connection_dropped() => {
                        (command.query_async(&mut manager).await.map_err(explain)?, true)
                    }
                    answer => (answer.map_err(explain)?, false),
                }
            }
            Primary::Cluster(cluster) => (cluster.query(command).await?, false),
        };
        Ok((parsed(answer)?, is_second))
    }

    /// Runs several commands where values are written. On a Cluster, they must be about one key.
    async fn query_all(&self, commands: &Pipeline) -> Result<Vec<Value>, CacheError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        match &self.servers.primary {
            Primary::Link(link) => parsed(link.query(Request::Several(commands)).await?.0),
            Primary::Manager(manager) => commands.query_async(&mut manager.clone()).await.map_err(explain),
            Primary::Cluster(cluster) => cluster.query_all(commands).await,
        }
    }

    /// Runs a command where values are read, which is a replica if one is there.
    async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        if let Some(answer) = self.ask_replica(command).await {
            return parsed(answer);
        }
        self.query(command).await
    }

    async fn ask_replica(&self, command: &Cmd) -> Option<Value> {
        let replicas = &self.servers.replicas;
        if replicas.is_empty() {
            return None;
        }
        let turn = self.servers.turn.fetch_add(1, Ordering::Relaxed);
        replicas[turn % replicas.len()].query_if_connected(command).await
    }

    /// `SET` with its conditions, in one round trip.
    async fn store(
        &self,
        key: &str,
        value: &[u8],
        seconds: Option<u64>,
        only_if: Option<ExistenceCheck>,
    ) -> Result<bool, CacheError> {
        let mut command = cmd("SET");
        command.arg(key).arg(value).arg(only_if);
        if let Some(seconds) = seconds {
            command.arg("EX").arg(seconds);
        }
        self.query(&command).await
    }
}

fn parsed<T: FromRedisValue>(answer: Value) -> Result<T, CacheError> {
    Ok(from_redis_value(answer).map_err(redis::RedisError::from)?)
}

/// What Redis takes after `EX`, where 0 is an error.
fn seconds(timeout: Option<Duration>) -> Option<u64> {
    timeout.map(|timeout| timeout.as_secs())
}

#[async_trait]
impl Cache for RedisCache {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        match seconds(timeout) {
            // Nothing is to be kept, so nothing is stored; the answer is what `SET NX` would have said.
            Some(0) => Ok(!self.query::<bool>(cmd("EXISTS").arg(key)).await?),
            seconds => self.store(key, value, seconds, Some(ExistenceCheck::NX)).await,
        }
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        self.read(cmd("GET").arg(key)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        match seconds(timeout) {
            Some(0) => self.delete(key).await?,
            seconds => self.store(key, value, seconds, None).await?,
        };
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        match seconds(timeout) {
            Some(0) => self.delete(key).await,
            seconds => self.store(key, value, seconds, Some(ExistenceCheck::XX)).await,
        }
    }

    fn can_swap(&self) -> bool {
        true
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn swap(
        &self,
        key: &str,
        before: Option<&super::Seen>,
        value: &[u8],
        timeout: Option<Duration>,
    ) -> Result<super::Swapped, CacheError> {
        use super::Swapped;

        let mut command = cmd("EVAL");
        let digest = before.map(|before| hex(&Sha1::digest(&before.value))).unwrap_or_default();
        command.arg(SWAP).arg(1).arg(key).arg(digest).arg(value);
        if let Some(seconds) = seconds(timeout) {
            command.arg("EX").arg(seconds);
        }
        Ok(match self.query(&command).await? {
            Value::Int(_) => Swapped::Done,
            Value::Nil => Swapped::Missing,
            now => Swapped::Differs(parsed::<Vec<u8>>(now)?.into()),
        })
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        let (deleted, is_second) = self.query_told(cmd("DEL").arg(key)).await?;
        Ok(deleted || is_second)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        match seconds(timeout) {
            Some(0) => self.delete(key).await,
            Some(seconds) => self.query(cmd("EXPIRE").arg(key).arg(seconds)).await,
            // `PERSIST` alone, as Django has it, says no for a key that has no timeout already.
            None => match self.query(cmd("PERSIST").arg(key)).await? {
                true => Ok(true),
                false => self.query(cmd("EXISTS").arg(key)).await,
            },
        }
    }

    /// To the millisecond.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add_exactly(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, CacheError> {
        let Some(life) = life else { return self.add(key, value, None).await };
        let mut command = cmd("SET");
        command
            .arg(key)
            .arg(value)
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1));
        self.query(&command).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn scan(
        &self,
        head: &str,
        cursor: &str,
        count: usize,
    ) -> Result<(Vec<String>, Option<String>), CacheError> {
        let wanted = Wanted { head, count };
        match &self.servers.primary {
            Primary::Cluster(cluster) => listing::of_cluster(cluster, wanted, cursor).await,
            _ => {
                let send = async |questions: Pipeline| self.query_all(&questions).await;
                listing::of_server(send, wanted, cursor).await
            }
        }
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, CacheError> {
        if let Primary::Cluster(cluster) = &self.servers.primary {
            return listing::entries_of_cluster(cluster, keys).await;
        }
        let mut questions = Pipeline::with_capacity(2 * keys.len());
        keys.iter().for_each(|key| listing::ask_for(&mut questions, key));
        let mut answers = self.query_all(&questions).await?.into_iter();
        let mut entries = Vec::with_capacity(keys.len());
        while let (Some(value), Some(life)) = (answers.next(), answers.next()) {
            entries.push(listing::entry(value, life)?);
        }
        Ok(entries)
    }
}
