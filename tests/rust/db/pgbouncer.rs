//! PgBouncer in transaction mode: many visitors, some of whom leave in the midst, share its few servers.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use django_sessions::backends::cache::CacheStore;
use django_sessions::caches::KeyLayout;
use django_sessions::caches::db::{DatabaseCacheSettings, DbCache};
use django_sessions::caches::format::Format;
use django_sessions::conformance::Capabilities;
use django_sessions::contrib::auth::Users;
use tokio::task::JoinSet;

use super::servers::Servers;
use super::*;

/// A pool that nobody told of PgBouncer, and one that leads around it.
async fn start() -> Option<(Servers, Pool, Pool)> {
    let servers = Servers::start(&["postgres", "pgbouncer"])?;
    let direct = Pool::connect(servers.text("postgres", "url")).await.unwrap();
    assert!(!direct.is_pgbouncer(), "PostgreSQL is taken for PgBouncer");
    let mut settings = database(&servers, "pgbouncer");
    assert_eq!(settings.pgbouncer, None);
    settings.max_connections = 16;
    // The visitors of a test wait for each other on a machine that does other things too.
    settings.connect_timeout = 30.0;
    let pool = Pool::open(&settings).await.unwrap();
    assert!(pool.is_pgbouncer(), "PgBouncer is not found");
    Some((servers, direct, pool))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_found_and_sessions_conform() {
    let Some((_servers, direct, pool)) = start().await else { return };
    create_table(&direct, POSTGRES).await;
    let (store, clock) = store(pool);
    let mut options = Options::new(clock);
    (options.rounds, options.expired) = (20, 100);
    conformance::run(&store, &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_cache_table_conforms() {
    let Some((_servers, direct, pool)) = start().await else { return };
    let columns = "cache_key varchar(255) PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL";
    run(&direct, format!("CREATE TABLE django_cache ({columns})")).await;
    let mut table = DatabaseCacheSettings::new("django_cache");
    table.max_entries = 10_000;
    let clock = Clock::manual();
    let (reader, other) = (clock.clone(), clock.clone());
    let cache = DbCache::new(pool, &table).with_clock(move || reader.now());
    let store = CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), settings());
    let mut options = Options::new(clock);
    options.capabilities = Capabilities::CACHE;
    options.rounds = 6;
    conformance::run(&Arc::new(store.with_clock(move || other.now())), &options).await.unwrap();
}

/// Cancels a call after it had to wait so many times.
async fn cancelled_after<F: Future>(waits: u32, call: F) -> Option<F::Output> {
    let (mut call, mut waited) = (pin!(call), 0);
    poll_fn(|context| match call.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if waited == waits => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_taken_for_another_user() {
    let Some((_servers, direct, pool)) = start().await else { return };
    run(
        &direct,
        "CREATE TABLE auth_user (id serial PRIMARY KEY, password varchar(128) NOT NULL, is_superuser bool NOT NULL, \
         username varchar(150) NOT NULL, first_name varchar(150) NOT NULL, last_name varchar(150) NOT NULL, \
         email varchar(254) NOT NULL, is_staff bool NOT NULL, is_active bool NOT NULL, last_login timestamptz)",
    )
    .await;
    run(
        &direct,
        "INSERT INTO auth_user SELECT i, '!', false, 'user ' || i, '', '', '', false, true, NULL FROM generate_series(1, 64) AS i",
    )
    .await;
    let users = Users::new(pool, settings());
    let mut visitors = JoinSet::new();
    for id in 1..=64_u32 {
        let users = users.clone();
        visitors.spawn(async move {
            for round in 0..20 {
                if round % 5 == 0 {
                    cancelled_after((id + round) % 7, users.by_id(i64::from(id))).await;
                    continue;
                }
                let user = users.by_id(i64::from(id)).await.unwrap().unwrap();
                assert_eq!((user.id, user.username), (i64::from(id).into(), format!("user {id}")));
            }
        });
    }
    visitors.join_all().await;
}

/// Who says that it is none is on their own: here, PgBouncer itself refuses.
#[tokio::test]
async fn what_is_said_of_it_is_believed() {
    let Some(servers) = Servers::start(&["postgres", "pgbouncer"]) else { return };
    let mut settings = database(&servers, "pgbouncer");
    settings.pgbouncer = Some(true);
    assert!(Pool::open(&settings).await.unwrap().is_pgbouncer());
    settings.pgbouncer = Some(false);
    let error = Pool::open(&settings).await.unwrap_err();
    assert!(error.to_string().contains("extra_float_digits"), "{error}");
    // The safe way round costs three round trips, and works without PgBouncer too.
    let mut settings = database(&servers, "postgres");
    settings.pgbouncer = Some(true);
    let pool = Pool::open(&settings).await.unwrap();
    create_table(&pool, POSTGRES).await;
    let (store, clock) = store(pool);
    let mut options = Options::new(clock);
    (options.rounds, options.expired) = (3, 100);
    conformance::run(&store, &options).await.unwrap();
}
