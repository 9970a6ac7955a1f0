//! Addresses as redis-py reads them. The redis crate has its own dialect: a password of a UNIX socket, a database in
//! the query or a host that is left out mean something else to it, or nothing.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::settings::{RedisSettings, limit};
use super::tls::Tls;
use crate::caches::{CacheError, TimeLimits};

/// What redis-py takes in a URL and what changes nothing about what is stored, nor about whom we trust.
const OF_NO_EFFECT: [&str; 17] = [
    "client_name",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "is_master",
    "legacy_responses",
    "lib_name",
    "lib_version",
    "max_connections",
    "protocol",
    "retry_on_error",
    "retry_on_timeout",
    "socket_keepalive",
    "socket_read_size",
    "socket_type",
    "timeout",
];

/// Where a server is and what it is told first.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: i64,
    pub(super) limits: TimeLimits,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    Tcp { host: String, port: u16, tls: Option<Tls> },
    Unix(PathBuf),
}

impl Address {
    /// Reads a URL. What it says wins over the settings, as in `ConnectionPool.from_url`.
    pub(super) fn read(url: &str, settings: &RedisSettings) -> Result<Self, CacheError> {
        let Some((scheme, rest)) = url.split_once("://") else { return Err(no_scheme()) };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (net, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, host) = net.rsplit_once('@').unwrap_or(("", net));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));

        let mut address = Self {
            place: Place::Unix(PathBuf::new()),
            username: settings.username.clone(),
            password: settings.password.as_ref().map(|secret| secret.expose().to_owned()),
            db: settings.db,
            limits: settings.limits()?,
        };
        let mut tls = settings.tls();
        if let Some(db) = number_in(path).filter(|_| scheme != "unix") {
            address.db = db;
        }
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // As `parse_qs`, which leaves out what is empty.
            if !value.is_empty() {
                address.take(&mut tls, &unquote_plus(name), &unquote_plus(value))?;
            }
        }
        for (part, field) in [(user, &mut address.username), (password, &mut address.password)] {
            if !part.is_empty() {
                *field = Some(unquote(part));
            }
        }
        address.place = match scheme {
            "redis" | "valkey" => tcp(host, None)?,
            "rediss" | "valkeys" => tcp(host, Some(tls))?,
            "unix" => Place::Unix(unquote(path).into()),
            _ => return Err(no_scheme()),
        };
        Ok(address)
    }

    /// Takes one option of the URL's query. An error names the option, never its value.
    fn take(&mut self, tls: &mut Tls, name: &str, value: &str) -> Result<(), CacheError> {
        let wrong = || CacheError::Settings(format!("`{name}` in the address of Redis cannot be read"));
        let seconds = |value: &str| limit(name, value.parse().map_err(|_| wrong())?);
        match name {
            "db" => self.db = value.trim().parse().map_err(|_| wrong())?,
            "username" => self.username = Some(value.to_owned()),
            "password" => self.password = Some(value.to_owned()),
            "socket_timeout" => self.limits.response = seconds(value)?,
            "socket_connect_timeout" => self.limits.connect = seconds(value)?,
            "ssl_ca_certs" => tls.ca_certs = Some(value.into()),
            "ssl_certfile" => tls.certfile = Some(value.into()),
            "ssl_keyfile" => tls.keyfile = Some(value.into()),
            "ssl_cert_reqs" => tls.cert_reqs = value.parse().map_err(|()| wrong())?,
            "ssl_check_hostname" => {
                tls.check_hostname = !["0", "f", "false", "n", "no"].contains(&value.to_lowercase().as_str());
            }
            _ if OF_NO_EFFECT.contains(&name) => {}
            _ => {
                let why = format!("`{name}` in the address of Redis is not understood; leave it out");
                return Err(CacheError::Settings(why));
            }
        }
        Ok(())
    }
}

fn no_scheme() -> CacheError {
    CacheError::Settings("the address of Redis must begin with redis://, rediss:// or unix://".to_owned())
}

fn tcp(net: &str, tls: Option<Tls>) -> Result<Place, CacheError> {
    // The colons of `[::1]:6379` are not all before the port.
    let (host, port) = match net.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
        None => net.split_once(':').unwrap_or((net, "")),
    };
    let wrong = |_| CacheError::Settings("the port in the address of Redis is no number below 65536".into());
    let port = if port.is_empty() { 6379 } else { port.parse().map_err(wrong)? };
    let host = if host.is_empty() { "localhost".to_owned() } else { unquote(host).to_lowercase() };
    Ok(Place::Tcp { host, port, tls })
}

/// The database of `/1`. What is no number says nothing to redis-py.
fn number_in(path: &str) -> Option<i64> {
    unquote(path).replace('/', "").trim().parse().ok()
}

fn unquote(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn unquote_plus(text: &str) -> String {
    unquote(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::CertReqs;
    use super::*;
    use crate::settings::Secret;

    fn read(url: &str) -> Address {
        Address::read(url, &RedisSettings::default()).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp { host: host.to_owned(), port, tls: None }
    }

    #[test]
    fn places() {
        for (url, place) in [
            ("redis://cache.example:6380/1", tcp("cache.example", 6380)),
            ("redis://Cache.Example", tcp("cache.example", 6379)),
            ("redis://", tcp("localhost", 6379)),
            ("redis://:secret@/0", tcp("localhost", 6379)),
            ("redis://my_cache:0001", tcp("my_cache", 1)),
            ("redis://[::1]:6380/1", tcp("::1", 6380)),
            ("redis://[::1]", tcp("::1", 6379)),
            ("valkey://10.0.0.1#fragment", tcp("10.0.0.1", 6379)),
            ("rediss://a", Place::Tcp { host: "a".into(), port: 6379, tls: Some(Tls::default()) }),
            ("unix:///run/redis%20a.sock?db=3", Place::Unix("/run/redis a.sock".into())),
            ("unix://:pw@/run/redis.sock", Place::Unix("/run/redis.sock".into())),
        ] {
            assert_eq!(read(url).place, place, "{url}");
        }
    }

    #[test]
    fn databases() {
        for (url, db) in [
            ("redis://a", 0),
            ("redis://a/", 0),
            ("redis://a/7", 7),
            ("redis://a/7/", 7),
            ("redis://a/7?db=8", 8),
            ("redis://a?db=8&db=", 8),
            ("redis://a/cache", 0),
            ("unix:///7?db=2", 2),
            ("unix:///7", 0),
        ] {
            assert_eq!(read(url).db, db, "{url}");
        }
        let settings = RedisSettings { db: 5, ..RedisSettings::default() };
        assert_eq!(Address::read("redis://a", &settings).unwrap().db, 5);
        assert_eq!(Address::read("redis://a/0", &settings).unwrap().db, 0, "the address wins");
    }

    #[test]
    fn logins() {
        for (url, username, password) in [
            ("redis://a", None, None),
            ("redis://:p%3A%2F%40@a", None, Some("p:/@")),
            ("redis://u%25:p%C3%A9+1@a", Some("u%"), Some("pé+1")),
            ("redis://u:p@w@a", Some("u"), Some("p@w")),
            ("redis://u:p:w@a", Some("u"), Some("p:w")),
            ("redis://u@a", Some("u"), None),
            ("redis://a?username=u&password=p+w%2B", Some("u"), Some("p w+")),
            ("unix://u:p@/s", Some("u"), Some("p")),
            ("unix:///s?username=u&password=p", Some("u"), Some("p")),
        ] {
            let address = read(url);
            assert_eq!(
                (address.username.as_deref(), address.password.as_deref()),
                (username, password),
                "{url}"
            );
        }
        let mut settings = RedisSettings::new("redis://a");
        settings.password = Some(Secret::new("of the settings"));
        assert_eq!(Address::read("redis://a", &settings).unwrap().password.unwrap(), "of the settings");
        assert_eq!(Address::read("redis://:of-it@a", &settings).unwrap().password.unwrap(), "of-it");
    }

    #[test]
    fn options() {
        let address = read(
            "rediss://a?socket_timeout=0.5&socket_connect_timeout=2&ssl_cert_reqs=none&ssl_ca_certs=/a%20b\
             &ssl_check_hostname=False&max_connections=9&ssl_certfile=c&ssl_keyfile=k",
        );
        assert_eq!(address.limits.response, Duration::from_millis(500));
        assert_eq!(address.limits.connect, Duration::from_secs(2));
        let Place::Tcp { tls: Some(tls), .. } = address.place else { panic!() };
        let expected = Tls {
            ca_certs: Some("/a b".into()),
            certfile: Some("c".into()),
            keyfile: Some("k".into()),
            cert_reqs: CertReqs::None,
            check_hostname: false,
        };
        assert_eq!(tls, expected);
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_value() {
        for (url, named) in [
            ("", "redis://"),
            ("127.0.0.1:6379", "redis://"),
            (" redis://a", "redis://"),
            ("http://:hunter2@a", "redis://"),
            ("redis://:hunter2@a:hunter2", "port"),
            ("redis://:hunter2@a:70000", "port"),
            ("redis://a?db=hunter2", "`db`"),
            ("redis://a?socket_timeout=hunter2", "`socket_timeout`"),
            ("redis://a?socket_timeout=-1", "`socket_timeout`"),
            ("redis://a?socket_timeout=nan", "`socket_timeout`"),
            ("rediss://a?ssl_cert_reqs=hunter2", "`ssl_cert_reqs`"),
            ("rediss://a?ssl_ca_path=hunter2", "`ssl_ca_path`"),
            ("redis://a?pasword=hunter2", "`pasword`"),
        ] {
            let error = Address::read(url, &RedisSettings::default()).err().expect(url).to_string();
            assert!(error.contains(named), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }
}
