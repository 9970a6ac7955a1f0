//! `DATABASES` as settings files have them.

use std::path::PathBuf;

use django_sessions::backends::db::MySqlSsl;
use serde_json::{Value, json};

use super::*;

fn options(engine: &str, options: Value) -> Result<DatabaseSettings, serde_json::Error> {
    serde_json::from_value(json!({"engine": engine, "name": "shop", "port": "", "options": options}))
}

#[test]
fn ordinary_options_are_understood() {
    let postgres = [
        json!({"sslmode": "verify-full", "sslrootcert": "system", "connect_timeout": "10"}),
        json!({"sslmode": "require", "sslcert": "/c.pem", "sslkey": "/k.pem", "application_name": "shop"}),
        json!({"options": "-c search_path=shop,public", "connect_timeout": 0, "assume_role": "shop"}),
    ];
    let mysql = [
        json!({"charset": "utf8mb4", "init_command": "SET sql_mode='STRICT_TRANS_TABLES'", "connect_timeout": 3}),
        json!({"isolation_level": "repeatable read", "unix_socket": "/run/mysqld.sock", "ssl_mode": "VERIFY_CA"}),
        json!({"ssl": {"ca": "/ca.pem", "cipher": "AES256-SHA", "check_hostname": true}}),
        json!({"ssl": true}),
        json!({"ssl": null, "connect_timeout": null}),
    ];
    let sqlite =
        [json!({"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"})];
    for (engine, kinds) in [("postgresql", &postgres[..]), ("mysql", &mysql), ("sqlite3", &sqlite)] {
        for kind in kinds {
            let engine = format!("django.db.backends.{engine}");
            options(&engine, kind.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }
    let settings = options("mysql", json!({"ssl": {"ca": "/ca.pem", "check_hostname": true}})).unwrap();
    let ssl = settings.options.ssl.unwrap();
    assert!(ssl.check_hostname && ssl.ca == Some(PathBuf::from("/ca.pem")) && settings.port.is_none());
    assert_eq!(options("mysql", json!({"ssl": true})).unwrap().options.ssl, Some(MySqlSsl::default()));
    assert_eq!(options("mysql", json!({"ssl": false})).unwrap().options.ssl, None);
    assert_eq!(
        options("postgresql", json!({"connect_timeout": "10"})).unwrap().options.connect_timeout,
        Some(10.0)
    );
}

/// What would not be done as it was asked for is refused, and says so.
#[test]
fn others_are_refused() {
    for (asked, said) in [
        (json!({"target_session_attrs": "read-write"}), "target_session_attrs"),
        (json!({"service": "shop"}), "service"),
        (json!({"connect_timeout": "soon"}), "float"),
        (json!({"ssl": {"capath": "/etc/ssl"}}), "ca, cert, key"),
    ] {
        let error = options("postgresql", asked).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(options("django.db.backends.oracle", json!({})).unwrap_err().to_string().contains("oracle"));
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn values_without_a_meaning_are_errors() {
    for options in ["-x", "-c", "-c timezone", "--timezone", "fsync=off"] {
        let mut database = DatabaseSettings::new(DatabaseEngine::Postgresql, "shop");
        database.options.options = Some(options.to_owned());
        let error = Pool::open(&database).await.unwrap_err();
        assert!(matches!(error, sqlx::Error::Configuration(_)), "{options}: {error}");
    }
    for limit in [-1.0, f64::NAN] {
        let mut database = DatabaseSettings::new(DatabaseEngine::Postgresql, "shop");
        database.options.connect_timeout = Some(limit);
        let error = Pool::open(&database).await.unwrap_err();
        assert!(matches!(error, sqlx::Error::Configuration(_)), "{limit}: {error}");
    }
}
