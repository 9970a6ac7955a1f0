//! Where a table may be: in a schema, and behind a UNIX socket.

use django_sessions::backends::SessionStore;
use django_sessions::session::Session;

use super::servers::Servers;
use super::*;

async fn is_kept(store: &DbStore) {
    let mut session = Session::new();
    session.insert("cart", &["tea"]).unwrap();
    store.save(&mut session).await.unwrap();
    let key = &session.key().unwrap().clone();
    assert_eq!(store.load(key).await.unwrap().get::<Vec<String>>("cart").unwrap().unwrap(), ["tea"]);
    assert!(store.exists(key).await.unwrap());
    assert_eq!(store.clear_expired().await.unwrap(), 0);
    store.save(&mut session).await.unwrap();
    store.delete(key).await.unwrap();
    assert!(!store.exists(key).await.unwrap());
}

#[tokio::test]
async fn behind_a_unix_socket() {
    let Some(servers) = Servers::start(&["postgres", "mariadb"]) else { return };
    for (name, types) in [("postgres", POSTGRES), ("mariadb", MARIADB)] {
        let mut settings = database(&servers, name);
        settings.host = servers.text(name, "socket").to_owned();
        if name == "mariadb" {
            settings.port = None;
        }
        let pool = Pool::open(&settings).await.unwrap();
        create_table(&pool, types).await;
        is_kept(&DbStore::new(pool, crate::settings())).await;
        if name == "mariadb" {
            settings.host = String::new();
            settings.options.unix_socket = Some(servers.text(name, "socket").into());
            is_kept(&DbStore::new(Pool::open(&settings).await.unwrap(), crate::settings())).await;
        }
    }
}

/// By the setting, and by PostgreSQL's own `search_path`, as Django projects have it in `OPTIONS`.
#[tokio::test]
async fn in_a_schema() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    let mut database = database(&servers, "postgres");
    let plain = Pool::open(&database).await.unwrap();
    run(&plain, "CREATE SCHEMA \"the Shop\"").await;
    database.options.options =
        Some(r#"-c search_path="the\ Shop",public -cstatement_timeout=9000"#.to_owned());
    let in_schema = Pool::open(&database).await.unwrap();
    create_table(&in_schema, POSTGRES).await;
    is_kept(&DbStore::new(in_schema.clone(), settings())).await;
    let limit: String =
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(in_schema.postgres().unwrap()).await.unwrap();
    assert_eq!(limit, "9s");
    let mut settings = settings();
    settings.db_schema = Some("the Shop".to_owned());
    is_kept(&DbStore::new(plain.clone(), settings)).await;
    let error = DbStore::new(plain, crate::settings()).save(&mut Session::new()).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("django_session"), "{error}");
}
