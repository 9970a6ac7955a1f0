//! A Django site with devices, and the crate beside it, by the settings that the site exported.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use django_sessions::backends::SessionStore;
use django_sessions::backends::db::Pool;
use django_sessions::contrib::auth::{User, Users};
use django_sessions::contrib::devices::{Device, Devices};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::Settings;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::django::{Django, is_built};

pub(crate) struct Site {
    django: Mutex<Django>,
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) users: Users,
    pub(crate) devices: Devices,
    pub(crate) pool: Pool,
    /// Seconds by which the devices' clock is ahead.
    ahead: Arc<AtomicI64>,
    names: AtomicUsize,
}

impl Site {
    pub(crate) async fn start(database: &Value, hash_keys: &str) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        if !is_built() {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("devices {} {number}.json", std::process::id());
        let export = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        let config = json!({"database": database, "export": export, "hash_keys": hash_keys}).to_string();
        let mut django = Django::start_with("devices.py", &[&config])?;
        // It answers when its tables are there.
        django.ask(&json!({"op": "rows", "username": "nobody"})).unwrap();
        let settings = Settings::from_file(&export).unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let site = Self {
            django: Mutex::new(django),
            store: settings.connect().await.unwrap(),
            pool: settings.pool("default").await.unwrap(),
            users: settings.connect_users().await.unwrap(),
            devices: with_clock(settings.connect_devices().await.unwrap().expect("the app"), &ahead),
            settings,
            ahead,
            names: AtomicUsize::new(0),
        };
        Some(site)
    }

    pub(crate) fn ask(&self, op: &str, mut arguments: Value) -> Value {
        arguments["op"] = op.into();
        let answer = self.django.lock().unwrap().ask(&arguments);
        serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{error}: {arguments}"))).unwrap()
    }

    /// A user of a new name. The devices' clock is Django's again.
    pub(crate) fn somebody(&self) -> String {
        self.ahead.store(0, Ordering::Relaxed);
        let name = format!("user{}", self.names.fetch_add(1, Ordering::Relaxed));
        self.ask("create", json!({"username": name}));
        name
    }

    pub(crate) async fn user(&self, username: &str) -> User {
        self.users.by_username(username).await.unwrap().unwrap()
    }

    /// The table's rows of a user, as Django reads them.
    pub(crate) fn rows(&self, username: &str) -> Vec<Value> {
        serde_json::from_value(self.ask("rows", json!({"username": username}))).unwrap()
    }

    /// What Django's `user_sessions` lists.
    pub(crate) fn listed(&self, username: &str) -> Vec<Value> {
        serde_json::from_value(self.ask("user_sessions", json!({"username": username}))).unwrap()
    }

    /// What Rust's `user_sessions` lists, in the same words.
    pub(crate) async fn listed_by_rust(&self, username: &str) -> Vec<Value> {
        self.sessions(username).await.iter().map(|device| self.describe(device, username)).collect()
    }

    pub(crate) async fn sessions(&self, username: &str) -> Vec<Device> {
        self.devices.user_sessions(&*self.store, &self.user(username).await).await.unwrap()
    }

    fn describe(&self, device: &Device, username: &str) -> Value {
        let rows = self.rows(username);
        let row = rows.iter().find(|row| row["id"] == device.id).expect("a row");
        json!({
            "id": device.id,
            "user": username,
            "key": row["key"], // which Rust does not tell
            "created": device.created.as_microsecond(),
            "last_seen": device.last_seen.as_microsecond(),
            "ip": device.ip.map(|ip| ip.to_string()),
            "agent": device.user_agent,
            "summary": device.summary(),
        })
    }

    /// Lets time pass for the devices.
    pub(crate) fn wait(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Those of another process, which remembers nothing.
    pub(crate) fn other_process(&self) -> Devices {
        self.clocked(Devices::new(self.pool.clone(), self.settings.clone()))
    }

    pub(crate) fn clocked(&self, devices: Devices) -> Devices {
        with_clock(devices, &self.ahead)
    }

    pub(crate) async fn load(&self, key: &str) -> Session {
        self.store.load(&SessionKey::new(key).unwrap()).await.unwrap()
    }
}

fn with_clock(devices: Devices, ahead: &Arc<AtomicI64>) -> Devices {
    let ahead = ahead.clone();
    devices.with_clock(move || Timestamp::now() + SignedDuration::from_secs(ahead.load(Ordering::Relaxed)))
}
