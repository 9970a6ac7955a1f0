//! A Redis Cluster: the connection of the redis crate, and what that does not notice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, ConnectionInfo, Pipeline, RedisResult, Value, cmd};
use tokio::time::timeout;

use super::address::{Address, Place};
use super::connection::{self, Request, explain};
use super::parsed;
use super::settings::RedisSettings;
use super::tls::Certificates;
use crate::caches::{CacheError, TimeLimits};

/// How often a command may be sent on: a redirection counts.
const RETRIES: u32 = 5;

/// A Cluster. The redis crate asks anew who has which slots when a server sends it elsewhere, or ends a connection. One
/// that hangs, or whose machine is gone, does neither: after a limit that ran out, we ask.
pub(super) struct Cluster {
    connection: Mutex<ClusterConnection>,
    /// How to make another one. The caller's own is left as it is.
    origin: Option<Origin>,
}

/// How to come by a connection.
struct Origin {
    seeds: Vec<ConnectionInfo>,
    certificates: Option<Certificates>,
    limits: TimeLimits,
    /// Who had which slots when the connection was made. Who holds this is about to make another one.
    owners: tokio::sync::Mutex<Vec<Slots>>,
}

impl Cluster {
    pub(super) fn of(connection: ClusterConnection) -> Self {
        Self { connection: Mutex::new(connection), origin: None }
    }

    pub(super) async fn open(settings: &RedisSettings, urls: &[&str]) -> Result<Self, CacheError> {
        let mut origin = Origin::read(settings, urls).await?;
        let mut connection = match timeout(origin.limit(), origin.client(&[])?.get_async_connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(refused_login(settings, urls).await.unwrap_or_else(|| explain(error)));
            }
            Err(_) => return Err(CacheError::TimedOut { limit: origin.limit() }),
        };
        // Who does not say so now will be asked when it matters.
        origin.owners = owners(&mut connection).await.unwrap_or_default().into();
        Ok(Self { connection: Mutex::new(connection), origin: Some(origin) })
    }

    pub(super) async fn query(self: &Arc<Self>, command: &Cmd) -> Result<Value, CacheError> {
        let answer = command.query_async(&mut self.connection()).await;
        self.explained(answer)
    }

    /// Several commands about one key.
    pub(super) async fn query_all(self: &Arc<Self>, commands: &Pipeline) -> Result<Vec<Value>, CacheError> {
        let answers = commands.query_async(&mut self.connection()).await;
        self.explained(answers)
    }

    /// Several commands about a server, to that one.
    pub(super) async fn ask(
        self: &Arc<Self>,
        commands: Pipeline,
        server: SingleNodeRoutingInfo,
    ) -> Result<Vec<Value>, CacheError> {
        let count = commands.len();
        let answers = self.connection().route_pipeline(commands, 0, count, server).await;
        self.explained(answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect()))
    }

    fn explained<T>(self: &Arc<Self>, answer: RedisResult<T>) -> Result<T, CacheError> {
        answer.map_err(|error| match &self.origin {
            Some(origin) if error.is_timeout() => {
                tokio::spawn(self.clone().follow());
                CacheError::TimedOut { limit: origin.limit() }
            }
            _ => explain(error),
        })
    }

    /// Makes another connection if slots have other owners by now. Until it is there the old one serves, which the
    /// requests for all other servers need not wait for.
    async fn follow(self: Arc<Self>) {
        let Some(origin) = &self.origin else { return };
        let Ok(mut owners_then) = origin.owners.try_lock() else { return };
        // What fails here is tried again after the next limit that runs out.
        let Ok(owners_now) = owners(&mut self.connection()).await else { return };
        if *owners_then == owners_now {
            return;
        }
        let Ok(client) = origin.client(&owners_now) else { return };
        if let Ok(Ok(connection)) = timeout(origin.limit(), client.get_async_connection()).await {
            *self.lock() = connection;
            *owners_then = owners_now;
        }
    }

    fn connection(&self) -> ClusterConnection {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ClusterConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    async fn read(settings: &RedisSettings, urls: &[&str]) -> Result<Self, CacheError> {
        let (mut seeds, mut certificates, mut limits) = (Vec::new(), None, TimeLimits::default());
        for url in urls {
            let address = Address::read(url, settings)?;
            if address.db != 0 {
                return Err(CacheError::Settings("a Redis Cluster has no database but 0".to_owned()));
            }
            let node = connection::node(&address)?;
            let Place::Tcp { host, port, tls } = address.place else {
                return Err(CacheError::Settings(
                    "the nodes of a Redis Cluster are hosts, not UNIX sockets".to_owned(),
                ));
            };
            limits = address.limits;
            certificates = connection::read(tls).await?;
            let client = connection::client(&node, certificates.as_ref(), host, port)?;
            seeds.push(client.get_connection_info().clone());
        }
        Ok(Self { seeds, certificates, limits, owners: tokio::sync::Mutex::default() })
    }

    /// One limit for a command with its redirections, and with the connection that it may have to wait for.
    fn limit(&self) -> Duration {
        self.limits.connect + self.limits.response
    }

    /// A client that asks these servers too: the one of the settings may be the one that is gone.
    fn client(&self, others: &[Slots]) -> RedisResult<ClusterClient> {
        let mut nodes = self.seeds.clone();
        let others: BTreeSet<_> =
            others.iter().filter_map(|slots| Some((slots.host.clone()?, slots.port))).collect();
        // All have the same login.
        for ((host, port), seed) in others.into_iter().zip(self.seeds.iter().cycle()) {
            let client = connection::client(seed, self.certificates.as_ref(), host, port)?;
            nodes.push(client.get_connection_info().clone());
        }
        let builder = ClusterClientBuilder::new(nodes)
            .connection_timeout(self.limits.connect)
            .response_timeout(self.limits.response)
            .overall_response_timeout(Some(self.limit()))
            .retries(RETRIES)
            .min_retry_wait(10)
            .max_retry_wait(200);
        #[cfg(feature = "tls")]
        let builder = match &self.certificates {
            Some(certificates) => certificates.cluster(builder),
            None => builder,
        };
        builder.build()
    }
}

/// What a node says about the login. Of the Cluster's connection one hears that there is none.
async fn refused_login(settings: &RedisSettings, urls: &[&str]) -> Option<CacheError> {
    for url in urls {
        let node = connection::server(Address::read(url, settings).ok()?).await.ok()?;
        if let Err(error @ CacheError::Login { .. }) = node.query(Request::One(&cmd("PING"))).await {
            return Some(error);
        }
    }
    None
}

/// A range of slots, and the primary that has them.
#[derive(Debug, PartialEq)]
pub(super) struct Slots {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) id: String,
    /// None, if clients are to know better themselves.
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

/// Who has which slots, as any of the servers sees it.
async fn owners(connection: &mut ClusterConnection) -> Result<Vec<Slots>, CacheError> {
    let anybody = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    Slots::read(connection.route_command(Slots::question(), anybody).await?)
}

impl Slots {
    pub(super) fn question() -> Cmd {
        let mut command = cmd("CLUSTER");
        command.arg("SLOTS");
        command
    }

    /// What a server answers, in the order of the slots.
    pub(super) fn read(answer: Value) -> Result<Vec<Self>, CacheError> {
        let mut ranges = Vec::new();
        for range in parsed::<Vec<Vec<Value>>>(answer)? {
            // Behind the primary there are its replicas, and behind its name there may be more about it.
            let mut range = range.into_iter();
            let (Some(first), Some(last), Some(primary)) = (range.next(), range.next(), range.next()) else {
                continue;
            };
            let mut primary = parsed::<Vec<Value>>(primary)?.into_iter();
            let (Some(host), Some(port), Some(id)) = (primary.next(), primary.next(), primary.next()) else {
                continue;
            };
            ranges.push(Self {
                first: parsed(first)?,
                last: parsed(last)?,
                id: parsed(id)?,
                host: parsed::<Option<String>>(host)?.filter(|host| !host.is_empty()),
                port: parsed(port)?,
            });
        }
        ranges.sort_by_key(|range| range.first);
        Ok(ranges)
    }
}
