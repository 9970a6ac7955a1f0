//! Asking sentinels where the servers are.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, RedisResult, cmd};
use tokio::task::JoinSet;

use super::connection::client;
use super::tls::Certificates;

/// Sentinels, and how to talk to the servers that they name.
pub(super) struct Sentinels {
    pub(super) clients: Vec<Client>,
    pub(super) service_name: String,
    /// Of any server: the login, the database, and TLS. The sentinels say the host and the port.
    pub(super) node: ConnectionInfo,
    pub(super) certificates: Option<Certificates>,
    pub(super) config: AsyncConnectionConfig,
    /// Replicas take turns.
    pub(super) turn: AtomicUsize,
}

impl Sentinels {
    /// A connection to the server that says of itself that it is the primary.
    pub(super) async fn primary(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        self.first(|this, sentinel| async move {
            let mut question = cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(&this.service_name);
            let address: Option<(String, u16)> = this.ask(&sentinel, &question).await?;
            let Some((host, port)) = address else { return Err(this.unknown()) };
            this.connect(host, port, "master").await
        })
        .await
    }

    /// A connection to one of the replicas.
    pub(super) async fn replica(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        self.first(|this, sentinel| async move {
            let mut question = cmd("SENTINEL");
            // The name that Redis before 5 knows too.
            question.arg("SLAVES").arg(&this.service_name);
            let replicas: Vec<HashMap<String, String>> = this.ask(&sentinel, &question).await?;
            let mut replicas: Vec<_> = replicas.iter().filter_map(address_of_healthy).collect();
            if replicas.is_empty() {
                let why = "the sentinels know of no replica that is up";
                return Err((ErrorKind::NoValidReplicasFoundBySentinel, why).into());
            }
            let (host, port) =
                replicas.swap_remove(this.turn.fetch_add(1, Ordering::Relaxed) % replicas.len());
            this.connect(host, port, "slave").await
        })
        .await
    }

    /// Asks all sentinels at once, and takes the first connection that one of them leads to: one that is down or wrong
    /// must not hold up the others.
    async fn first<F>(
        self: &Arc<Self>,
        find: impl Fn(Arc<Self>, Client) -> F,
    ) -> RedisResult<MultiplexedConnection>
    where
        F: Future<Output = RedisResult<MultiplexedConnection>> + Send + 'static,
    {
        let mut searches = JoinSet::new();
        for sentinel in &self.clients {
            searches.spawn(find(self.clone(), sentinel.clone()));
        }
        let mut failure = None;
        while let Some(found) = searches.join_next().await {
            match found {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "no sentinel answered").into()))
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        sentinel: &Client,
        question: &redis::Cmd,
    ) -> RedisResult<T> {
        let mut connection = sentinel.get_multiplexed_async_connection_with_config(&self.config).await?;
        question.query_async(&mut connection).await
    }

    /// Sentinels hear of a failover one after another: only the server itself knows what it is.
    async fn connect(&self, host: String, port: u16, role: &str) -> RedisResult<MultiplexedConnection> {
        let client = client(&self.node, self.certificates.as_ref(), host, port)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let answer: Vec<redis::Value> = cmd("ROLE").query_async(&mut connection).await?;
        let is_that = answer.first().is_some_and(
            |value| matches!(value, redis::Value::BulkString(bytes) if bytes == role.as_bytes()),
        );
        if is_that {
            return Ok(connection);
        }
        let why = "a sentinel named a server that has another role meanwhile: a failover is under way";
        Err((ErrorKind::MasterNameNotFoundBySentinel, why).into())
    }

    fn unknown(&self) -> RedisError {
        let why = "the sentinels watch no primary of this name (`service_name`)";
        (ErrorKind::MasterNameNotFoundBySentinel, why, self.service_name.clone()).into()
    }
}

fn address_of_healthy(replica: &HashMap<String, String>) -> Option<(String, u16)> {
    let is_down =
        replica.get("flags")?.split(',').any(|flag| ["s_down", "o_down", "disconnected"].contains(&flag));
    if is_down {
        return None;
    }
    Some((replica.get("ip")?.clone(), replica.get("port")?.parse().ok()?))
}
