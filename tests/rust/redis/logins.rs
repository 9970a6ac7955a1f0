//! Passwords and users: they open the door, and are never shown.

use std::error::Error;

use django_sessions::settings::Secret;

use super::*;

const NAMES: [&str; 4] =
    ["redis+password", "redis_replicas+password", "redis_sentinel+password", "redis_cluster+password"];

/// Of each kind, without a login.
fn shapes(servers: &Servers) -> Vec<(&'static str, RedisSettings)> {
    let [one, group, watched, cluster] = NAMES;
    let urls = |name| {
        let ports = servers.numbers(name, "ports");
        ports.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    };
    let mut sentinel = sentinel_of(servers, watched);
    sentinel.sentinel_kwargs.password = Some(Secret::new(servers.text(watched, "sentinel_password")));
    let mut shapes = vec![
        (one, RedisSettings::new(format!("redis://127.0.0.1:{}", servers.number(one, "port")))),
        (one, RedisSettings::new(format!("unix://{}", servers.text(one, "socket")))),
        (group, RedisSettings::new(urls(group))),
        (watched, sentinel),
        (cluster, RedisSettings { cluster: true, ..RedisSettings::new(urls(cluster)) }),
    ];
    for (_, settings) in &mut shapes {
        settings.read_from_replicas = false;
    }
    shapes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_users_open_each_shape() {
    let Some(servers) = Servers::start(&NAMES) else { return };
    for (name, mut settings) in shapes(&servers) {
        settings.password = Some(Secret::new(servers.text(name, "password")));
        stores_and_finds_again(&open(&settings).await).await;
        settings.username = Some(servers.text(name, "user").to_owned());
        settings.password = Some(Secret::new(servers.text(name, "user_password")));
        stores_and_finds_again(&open(&settings).await).await;
    }
    for detail in ["url", "user_url"] {
        stores_and_finds_again(&open(&RedisSettings::new(servers.text(NAMES[0], detail))).await).await;
    }
    let all = RedisSettings { cluster: true, ..RedisSettings::new(servers.text(NAMES[3], "urls")) };
    stores_and_finds_again(&open(&all).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_login_is_refused_with_advice_and_without_the_password() {
    let Some(servers) = Servers::start(&NAMES) else { return };
    for (name, settings) in shapes(&servers) {
        for (username, password) in [(None, None), (None, Some("hunter2")), (Some("nobody"), Some("hunter2"))]
        {
            let mut settings = settings.clone();
            settings.username = username.map(str::to_owned);
            settings.password = password.map(Secret::new);
            let error = RedisCache::open(&settings).await.unwrap_err();
            let CacheError::Login { advice, source } = &error else { panic!("{name}: {error:?}") };
            assert!(advice.contains("`password`"), "{advice}");
            for shown in [error.to_string(), format!("{error:?}"), format!("{source} {source:?}")] {
                assert!(!shown.contains("hunter2"), "{shown}");
            }
            assert!(error.source().is_some());
        }
    }
    let mut unknown_to_sentinels = shapes(&servers).swap_remove(3).1;
    unknown_to_sentinels.password = Some(Secret::new(servers.text(NAMES[2], "password")));
    unknown_to_sentinels.sentinel_kwargs.password = None;
    let error = RedisCache::open(&unknown_to_sentinels).await.unwrap_err();
    assert!(matches!(error, CacheError::Login { .. }), "{error:?}");
}

/// Who may do only what sessions need can be who we are, even where `PING` is not allowed.
#[tokio::test]
async fn a_user_with_few_rights_will_do() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let port = servers.number("redis", "port");
    let () = say(port, "ACL SETUSER few on >few ~* -@all +get +set +del +exists +expire +persist");
    let () = say(port, "ACL SETUSER none on >none ~* -@all");
    let at = |user: &str| RedisSettings::new(format!("redis://{user}:{user}@127.0.0.1:{port}"));
    stores_and_finds_again(&open(&at("few")).await).await;
    let none = open(&at("none")).await;
    let error = none.get("key").await.unwrap_err();
    let CacheError::Login { advice, .. } = error else { panic!("{error:?}") };
    assert!(advice.contains("EXPIRE"), "{advice}");
}
