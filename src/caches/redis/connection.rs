//! One connection to a server, made again when it is lost.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::address::{Address, Place};
use super::sentinel::Sentinels;
use super::settings::RedisSettings;
use super::tls::Certificates;
use crate::caches::{CacheError, TimeLimits};

/// A replica that could not be reached is left alone for so long.
const REST: Duration = Duration::from_secs(1);

/// How to come by a connection.
pub(super) enum Target {
    Server(Client),
    Primary(Arc<Sentinels>),
    Replica(Arc<Sentinels>),
    /// The caller's own. It needs itself whole to answer.
    Sentinel(tokio::sync::Mutex<SentinelClient>),
}

impl Target {
    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => client.get_multiplexed_async_connection_with_config(config).await,
            Self::Primary(sentinels) => sentinels.primary().await,
            Self::Replica(sentinels) => sentinels.replica().await,
            Self::Sentinel(client) => client.lock().await.get_async_connection_with_config(config).await,
        }
    }
}

/// What is sent to a server at once.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    Several(&'a Pipeline),
}

impl Request<'_> {
    async fn send(self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Self::One(command) => command.query_async(connection).await,
            Self::Several(commands) => commands.query_async(connection).await,
        }
    }
}

/// The way to one server: a connection over which all requests talk at once.
///
/// Why no dropped future can harm it: connections are made by tasks of their own, which nobody can cancel and which all
/// who wait share; and the redis crate keeps the answers of a connection in order, whether or not somebody still waits
/// for them.
pub(super) struct Link {
    target: Arc<Target>,
    config: AsyncConnectionConfig,
    limits: TimeLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    attempt: Option<Attempt>,
    begun: Option<Instant>,
}

/// One attempt to connect: nothing while it lasts, then what came of it.
type Attempt = watch::Receiver<Option<RedisResult<MultiplexedConnection>>>;

impl Link {
    pub(super) fn new(target: Target, limits: TimeLimits) -> Self {
        Self { target: Arc::new(target), config: config(limits), limits, state: Mutex::default() }
    }

    /// Runs a request, and says whether it may have arrived twice: a server that is gone is looked for once.
    pub(super) async fn query(&self, request: Request<'_>) -> Result<(Value, bool), CacheError> {
        let mut is_second = false;
        match self.try_query(request).await {
            // The server ended the connection since the last command (a restart, its idle timeout, a failover), or is
            // the primary no more and did nothing. Should the command have arrived all the same, then the worst is an
            // `add` that meets its own value and calls the key taken, or a `delete` that finds nothing any more.
            Err(Failure { error, was_connected: true }) if is_gone(&error) => {
                is_second = error.is_connection_dropped();
                self.try_query(request).await
            }
            answer => answer,
        }
        .map(|answer| (answer, is_second))
        .map_err(|failure| failure.explain(self.limits))
    }

    async fn try_query(&self, request: Request<'_>) -> Result<Value, Failure> {
        let attempt = self.attempt();
        let ready = attempt.borrow().clone();
        let connection = match ready {
            Some(connection) => connection,
            None => wait(attempt.clone()).await,
        };
        let mut connection = connection.map_err(|error| Failure { error, was_connected: false })?;
        self.run(request, &attempt, &mut connection).await
    }

    /// Runs a command if there is a connection already. If there is none, one is made for the next caller.
    pub(super) async fn query_if_connected(&self, command: &Cmd) -> Option<Value> {
        let attempt = self.attempt_if_rested()?;
        let connection = attempt.borrow().clone();
        let Some(Ok(mut connection)) = connection else { return None };
        self.run(Request::One(command), &attempt, &mut connection).await.ok()
    }

    async fn run(
        &self,
        request: Request<'_>,
        attempt: &Attempt,
        connection: &mut MultiplexedConnection,
    ) -> Result<Value, Failure> {
        let answer = request.send(connection).await;
        answer.map_err(|error| {
            // Who does not answer in time may be gone without a word, and the system would notice after minutes.
            if is_gone(&error) || error.is_timeout() {
                self.leave(attempt);
            }
            Failure { error, was_connected: true }
        })
    }

    /// The attempt that counts now: the last one, unless it failed.
    fn attempt(&self) -> Attempt {
        let mut state = self.state();
        match &state.attempt {
            Some(attempt) if !has_failed(attempt) => attempt.clone(),
            _ => self.begin(&mut state),
        }
    }

    fn attempt_if_rested(&self) -> Option<Attempt> {
        let mut state = self.state();
        match &state.attempt {
            Some(attempt) if !has_failed(attempt) => Some(attempt.clone()),
            _ if state.begun.is_some_and(|begun| begun.elapsed() < REST) => None,
            _ => Some(self.begin(&mut state)),
        }
    }

    fn begin(&self, state: &mut State) -> Attempt {
        let (sender, attempt) = watch::channel(None);
        let (target, config, limit) = (self.target.clone(), self.config.clone(), self.limits.connect);
        tokio::spawn(async move {
            let result = timeout(limit, target.connect(&config)).await;
            let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
            sender.send_replace(Some(result.unwrap_or_else(late)));
        });
        state.begun = Some(Instant::now());
        state.attempt = Some(attempt.clone());
        attempt
    }

    /// Forgets the connection, unless somebody else did so already. Who still waits for an answer on it may.
    fn leave(&self, attempt: &Attempt) {
        let mut state = self.state();
        if state.attempt.as_ref().is_some_and(|current| current.same_channel(attempt)) {
            state.attempt = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the redis crate is to wait for. Its own limit is half a second.
fn config(limits: TimeLimits) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits.connect))
        .set_response_timeout(Some(limits.response))
}

async fn wait(mut attempt: Attempt) -> RedisResult<MultiplexedConnection> {
    match attempt.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(result)) => result.clone(),
        _ => Err((ErrorKind::Io, "the runtime ended that was connecting").into()),
    }
}

fn has_failed(attempt: &Attempt) -> bool {
    match &*attempt.borrow() {
        Some(result) => result.is_err(),
        // Without a sender, nothing will ever come of it.
        None => attempt.has_changed().is_err(),
    }
}

fn is_gone(error: &RedisError) -> bool {
    error.is_connection_dropped() || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

struct Failure {
    error: RedisError,
    was_connected: bool,
}

impl Failure {
    fn explain(self, limits: TimeLimits) -> CacheError {
        if self.error.is_timeout() {
            let limit = if self.was_connected { limits.response } else { limits.connect };
            return CacheError::TimedOut { limit };
        }
        explain(self.error)
    }
}

/// Says what to do, where that is known.
pub(super) fn explain(error: RedisError) -> CacheError {
    let advice = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            "it knows no such user, or the password is another: see `username` and `password`, or the address"
        }
        (_, Some("NOAUTH")) => "it wants a password: set `password`, and `username` if there are users",
        (_, Some("NOPERM")) => {
            "this user may not do that: sessions need GET, SET, EXISTS, DEL, EXPIRE and PERSIST on their keys, EVAL if \
             saves are merged, and to be listed SCAN, INFO and PTTL"
        }
        (_, Some("WRONGTYPE")) => return CacheError::Unreadable("it is a list, a set or the like of Redis"),
        _ => return CacheError::Redis(error),
    };
    CacheError::Login { advice, source: error }
}

/// A client for a server that is known by its address, or for one like it that sentinels will name.
pub(super) fn client(
    node: &ConnectionInfo,
    certificates: Option<&Certificates>,
    host: String,
    port: u16,
) -> RedisResult<Client> {
    let addr = match certificates {
        None => ConnectionAddr::Tcp(host, port),
        Some(certificates) => {
            ConnectionAddr::TcpTls { host, port, insecure: certificates.is_insecure(), tls_params: None }
        }
    };
    let info = node.clone().set_addr(addr);
    match certificates {
        None => Client::open(info),
        Some(certificates) => certificates.client(info),
    }
}

/// The login and the database of an address, with any place.
pub(super) fn node(address: &Address) -> RedisResult<ConnectionInfo> {
    let mut login = RedisConnectionInfo::default().set_db(address.db);
    if let Some(username) = &address.username {
        login = login.set_username(username);
    }
    if let Some(password) = &address.password {
        // As redis-py greets: a password alone is refused by a server that wants none. One before Redis 6, which knows no
        // users, is asked once more without the name.
        let username = address.username.as_deref().unwrap_or("default");
        login = login.set_username(username).set_password(password);
    }
    Ok(ConnectionAddr::Unix("".into()).into_connection_info()?.set_redis_settings(login))
}

/// The way to one server.
pub(super) async fn server(address: Address) -> Result<Link, CacheError> {
    let node = node(&address)?;
    let client = match address.place {
        Place::Unix(path) => Client::open(node.set_addr(ConnectionAddr::Unix(path)))?,
        Place::Tcp { host, port, tls } => client(&node, read(tls).await?.as_ref(), host, port)?,
    };
    Ok(Link::new(Target::Server(client), address.limits))
}

/// The ways to the primary that sentinels name, and to a replica.
pub(super) async fn sentinels(settings: &RedisSettings, url: &str) -> Result<(Link, Link), CacheError> {
    let address = Address::read(url, settings)?;
    let node = node(&address)?;
    let Place::Tcp { host, tls, .. } = address.place else {
        return Err(CacheError::Settings("sentinels name hosts and ports, not UNIX sockets".to_owned()));
    };
    let sentinels = Arc::new(Sentinels {
        clients: sentinel_clients(settings).await?,
        service_name: settings.service_name.clone().unwrap_or(host),
        node,
        certificates: read(tls).await?,
        config: config(address.limits),
        turn: AtomicUsize::new(0),
    });
    let primary = Link::new(Target::Primary(sentinels.clone()), address.limits);
    Ok((primary, Link::new(Target::Replica(sentinels), address.limits)))
}

async fn sentinel_clients(settings: &RedisSettings) -> Result<Vec<Client>, CacheError> {
    let kwargs = &settings.sentinel_kwargs;
    let login = Address {
        place: Place::Unix("".into()),
        username: kwargs.username.clone(),
        password: kwargs.password.as_ref().map(|password| password.expose().to_owned()),
        db: 0,
        limits: settings.limits()?,
    };
    let (node, certificates) = (node(&login)?, read(kwargs.tls()).await?);
    let mut clients = Vec::new();
    for (host, port) in &settings.sentinels {
        clients.push(client(&node, certificates.as_ref(), host.clone(), *port)?);
    }
    Ok(clients)
}

pub(super) async fn read(tls: Option<super::tls::Tls>) -> Result<Option<Certificates>, CacheError> {
    match tls {
        Some(tls) => Certificates::read(tls).await.map(Some),
        None => Ok(None),
    }
}
