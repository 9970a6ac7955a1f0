//! Databases that die, hang, come back or refuse.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::session::{Session, SessionKey};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::servers::Servers;
use super::signals::signal;
use super::*;

/// A connection and an answer, with the room that a busy machine needs.
const LONGEST: Duration = Duration::from_secs(5);

/// A database with short limits, which keeps what it said it has even when it is killed.
async fn impatient(servers: &Servers, name: &str) -> (DatabaseSettings, Arc<DbStore>) {
    let mut settings = database(servers, name);
    (settings.connect_timeout, settings.response_timeout) = (1.5, Some(1.0));
    if name == "mariadb" {
        run(&Pool::open(&settings).await.unwrap(), "SET GLOBAL innodb_flush_log_at_trx_commit = 1").await;
    } else {
        settings.options.options = Some("-c synchronous_commit=on".to_owned());
    }
    let pool = Pool::open(&settings).await.unwrap();
    create_table(&pool, if name == "mariadb" { MARIADB } else { POSTGRES }).await;
    (settings, Arc::new(DbStore::new(pool, crate::settings())))
}

async fn saved(store: &DbStore) -> SessionKey {
    let mut session = Session::new();
    session.insert("name", "mine").unwrap();
    store.save(&mut session).await.unwrap();
    session.key().unwrap().clone()
}

async fn fails_within_the_limits(store: &DbStore, key: &SessionKey) {
    let start = Instant::now();
    let error = store.load(key).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
}

async fn until_it_works(store: &DbStore, key: &SessionKey) -> Session {
    let start = Instant::now();
    loop {
        match store.load(key).await {
            Ok(session) => return session,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How a server was started, so that it can be again.
struct Killed {
    command: Vec<String>,
    folder: PathBuf,
    owner: (u32, u32),
}

impl Killed {
    fn kill(servers: &Servers, name: &str) -> Self {
        let pid = servers.number(name, "pid");
        let process = PathBuf::from(format!("/proc/{pid}"));
        let owner = fs::metadata(&process).unwrap();
        let command = fs::read_to_string(process.join("cmdline")).unwrap();
        let killed = Self {
            command: command.split_terminator('\0').map(str::to_owned).collect(),
            folder: servers.text(name, "folder").into(),
            owner: (owner.uid(), owner.gid()),
        };
        signal(pid, "KILL");
        killed
    }

    fn start(self) -> Again {
        // PostgreSQL takes the one that nobody has waited for yet for a live one.
        let is_lock = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
        let entries = fs::read_dir(&self.folder).unwrap().flatten();
        let locks = entries.map(|entry| entry.path()).filter(is_lock);
        for lock in locks.chain([self.folder.join("data/postmaster.pid")]) {
            drop(fs::remove_file(lock));
        }
        let log = fs::File::create(self.folder.join("again.log")).unwrap();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(&self.folder).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if self.owner.0 != fs::metadata("/proc/self").unwrap().uid() {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        Again(command.spawn().unwrap())
    }
}

struct Again(Child);

impl Drop for Again {
    fn drop(&mut self) {
        signal(self.0.id(), "KILL");
        self.0.wait().unwrap();
    }
}

/// What was saved before is there after, and no visitor has another's.
async fn survives_a_kill(name: &str) {
    let Some(servers) = Servers::start(&[name]) else { return };
    let (settings, store) = impatient(&servers, name).await;
    let mut visitors = JoinSet::new();
    for visitor in 0..8 {
        let store = store.clone();
        let mut session = Session::new();
        session.insert("visitor", &visitor).unwrap();
        store.save(&mut session).await.unwrap();
        visitors.spawn(async move {
            for round in 0_u32.. {
                session.insert("round", &round).unwrap();
                if store.save(&mut session).await.is_err() {
                    return (visitor, session.key().unwrap().clone(), round);
                }
            }
            unreachable!("the server is killed")
        });
    }
    sleep(Duration::from_millis(500)).await;
    let killed = Killed::kill(&servers, name);
    let start = Instant::now();
    let saved = visitors.join_all().await;
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    fails_within_the_limits(&store, &saved[0].1).await;
    assert!(Pool::open(&settings).await.is_err());

    let _again = killed.start();
    for (visitor, key, failed) in saved {
        let session = until_it_works(&store, &key).await;
        assert_eq!(session.get::<i32>("visitor").unwrap(), Some(visitor));
        // The save that failed may have been done all the same.
        let round = session.get::<u32>("round").unwrap().unwrap_or_default();
        assert!(round == failed || round + 1 == failed, "{round} is stored, {failed} failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_is_used_again() {
    survives_a_kill("postgres").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mariadb_is_used_again() {
    survives_a_kill("mariadb").await;
}

async fn survives_a_pause(name: &str) {
    let Some(servers) = Servers::start(&[name]) else { return };
    let (settings, store) = impatient(&servers, name).await;
    let key = saved(&store).await;
    let pid = servers.number(name, "pid");
    signal(pid, "STOP");
    // With the old connection, with a new one, and with many who wait for one together.
    fails_within_the_limits(&store, &key).await;
    fails_within_the_limits(&store, &key).await;
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let (store, key) = (store.clone(), key.clone());
        waiting.spawn(async move { fails_within_the_limits(&store, &key).await });
    }
    waiting.join_all().await;
    let start = Instant::now();
    assert!(Pool::open(&settings).await.is_err());
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    signal(pid, "CONT");
    let session = until_it_works(&store, &key).await;
    assert_eq!(session.get::<String>("name").unwrap().unwrap(), "mine");
    for _ in 0..50 {
        saved(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_postgres_keeps_nobody_waiting() {
    survives_a_pause("postgres").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_mariadb_keeps_nobody_waiting() {
    survives_a_pause("mariadb").await;
}

/// Reads go on, and nothing is written.
async fn refuses_writes(pool: Pool, key: &SessionKey) {
    let store = DbStore::new(pool, settings());
    let mut session = store.load(key).await.unwrap();
    for _ in 0..2 {
        session.insert("name", "another").unwrap();
        let refused = [
            store.save(&mut session).await.unwrap_err(),
            store.save(&mut Session::new()).await.unwrap_err(),
            store.delete(key).await.unwrap_err(),
            store.clear_expired().await.unwrap_err(),
        ];
        for error in refused {
            let StoreError::Database(error) = error else { panic!("{error:?}") };
            assert!(error.as_database_error().is_some(), "{error:?}");
        }
        assert_eq!(store.load(key).await.unwrap().get::<String>("name").unwrap().unwrap(), "mine");
    }
}

#[tokio::test]
async fn a_read_only_postgres_refuses() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    let (settings, store) = impatient(&servers, "postgres").await;
    let key = saved(&store).await;
    let mut read_only = settings.clone();
    read_only.options.options = Some("-c default_transaction_read_only=on".to_owned());
    refuses_writes(Pool::open(&read_only).await.unwrap(), &key).await;
    run(store.pool(), "CREATE ROLE \"the reader\"; GRANT SELECT ON django_session TO \"the reader\"").await;
    let mut reader = settings.clone();
    reader.options.assume_role = Some("the reader".to_owned());
    refuses_writes(Pool::open(&reader).await.unwrap(), &key).await;
}

#[tokio::test]
async fn a_read_only_mariadb_refuses() {
    let Some(servers) = Servers::start(&["mariadb"]) else { return };
    let (settings, store) = impatient(&servers, "mariadb").await;
    let key = saved(&store).await;
    let mut read_only = settings.clone();
    read_only.options.init_command = Some("SET SESSION TRANSACTION READ ONLY".to_owned());
    refuses_writes(Pool::open(&read_only).await.unwrap(), &key).await;
    let user = "CREATE USER reader@'%' IDENTIFIED BY 'reader'; GRANT SELECT ON django.* TO reader@'%'";
    run(store.pool(), user).await;
    let mut reader = settings.clone();
    (reader.user, reader.password) = ("reader".to_owned(), Some(Secret::new("reader")));
    refuses_writes(Pool::open(&reader).await.unwrap(), &key).await;
}

/// Somebody else's transaction holds the row for so long.
async fn locked_by_another(
    settings: &DatabaseSettings,
    key: &SessionKey,
    time: Duration,
) -> tokio::task::JoinHandle<()> {
    // All on one connection, which is in the transaction between the statements, too.
    let mut alone = settings.clone();
    alone.max_connections = 1;
    let pool = Pool::open(&alone).await.unwrap();
    run(&pool, "BEGIN").await;
    let key = key.as_str();
    run(&pool, format!("SELECT session_key FROM django_session WHERE session_key = '{key}' FOR UPDATE"))
        .await;
    tokio::spawn(async move {
        sleep(time).await;
        run(&pool, "COMMIT").await;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_client_gave_up_is_not_done_later() {
    let Some(servers) = Servers::start(&["postgres", "mariadb"]) else { return };
    for name in ["postgres", "mariadb"] {
        let (mut settings, direct) = impatient(&servers, name).await;
        settings.response_timeout = Some(2.2);
        let store = DbStore::new(Pool::open(&settings).await.unwrap(), crate::settings());
        let key = saved(&store).await;
        let holder = locked_by_another(&settings, &key, Duration::from_secs(4)).await;
        let start = Instant::now();
        assert!(matches!(store.delete(&key).await, Err(StoreError::Database(_))));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        if name == "postgres" {
            // Also where the client is gone, and with it its connection.
            let gone = tokio::time::timeout(Duration::from_millis(300), store.delete(&key)).await;
            assert!(gone.is_err());
        }
        holder.await.unwrap();
        sleep(Duration::from_millis(500)).await;
        assert!(direct.exists(&key).await.unwrap(), "{name}");
    }
}

#[cfg(feature = "locmem")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_whose_client_goes_away_stays_one_in_the_cache_too() {
    use django_sessions::backends::{cache::CacheStore, cached_db::CachedDbStore};
    use django_sessions::caches::{KeyLayout, format::Format, locmem::LocMemCache};
    let Some(servers) = Servers::start(&["postgres", "mariadb"]) else { return };
    for name in ["postgres", "mariadb"] {
        let (mut settings, _) = impatient(&servers, name).await;
        settings.response_timeout = Some(10.0);
        let db = DbStore::new(Pool::open(&settings).await.unwrap(), crate::settings());
        let cache = Arc::new(LocMemCache::open(&Default::default()).unwrap());
        let cache = CacheStore::new(cache, KeyLayout::default(), Format::django(), crate::settings());
        let store = CachedDbStore::new(cache, db.clone());
        let key = saved(&db).await;
        let holder = locked_by_another(&settings, &key, Duration::from_millis(1500)).await;
        assert!(tokio::time::timeout(Duration::from_millis(300), store.delete(&key)).await.is_err());
        // Another tab fills the cache from the row.
        assert_eq!(store.load(&key).await.unwrap().key(), Some(&key));
        holder.await.unwrap();
        let start = Instant::now();
        while store.load(&key).await.unwrap().key().is_some() {
            assert!(start.elapsed() < LONGEST, "{name}");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(!db.exists(&key).await.unwrap(), "{name}");
    }
}

#[tokio::test]
async fn a_connection_to_a_server_that_only_reads_is_given_up() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    let (mut settings, direct) = impatient(&servers, "postgres").await;
    let key = saved(&direct).await;
    settings.max_connections = 1;
    run(direct.pool(), "ALTER ROLE CURRENT_USER SET default_transaction_read_only = on").await;
    let store = DbStore::new(Pool::open(&settings).await.unwrap(), crate::settings());
    let mut session = store.load(&key).await.unwrap();
    session.insert("name", "new").unwrap();
    assert!(matches!(store.save(&mut session).await, Err(StoreError::Database(_))));
    run(direct.pool(), "ALTER ROLE CURRENT_USER RESET default_transaction_read_only").await;
    store.save(&mut session).await.unwrap();
}
