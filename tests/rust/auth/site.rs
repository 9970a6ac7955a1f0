//! A Django site with a user model, and the crate beside it, by the settings that the site exported.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use django_sessions::backends::SessionStore;
use django_sessions::backends::db::DbStore;
use django_sessions::contrib::auth::{User, Users};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::Settings;
use serde_json::{Map, Value, json};

use crate::django::{Django, is_built};

pub(crate) struct Site {
    django: Arc<Mutex<Django>>,
    pub(crate) model: String,
    pub(crate) settings: Settings,
    pub(crate) store: DbStore,
    pub(crate) users: Users,
}

impl Site {
    pub(crate) async fn start(database: &Value, model: &str) -> Option<Self> {
        if !is_built() {
            return None;
        }
        let (django, export) = Self::start_django(database, model)?;
        Some(Self::open(Arc::new(Mutex::new(django)), &export, model).await)
    }

    /// One on SQLite, with Django's own user model, that tests share: each has users of its own.
    pub(crate) async fn small() -> Option<Self> {
        static SHARED: OnceLock<Option<(Arc<Mutex<Django>>, PathBuf)>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            if !is_built() {
                return None;
            }
            let file =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("users {}.sqlite3", std::process::id()));
            // Many tests write. A transaction that reads first and then finds another one's lock would fail at once.
            let options = json!({"transaction_mode": "IMMEDIATE", "timeout": 30});
            let database = json!({"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options});
            let (django, export) = Self::start_django(&database, "auth.User")?;
            Some((Arc::new(Mutex::new(django)), export))
        });
        let (django, export) = shared.as_ref()?;
        Some(Self::open(django.clone(), export, "auth.User").await)
    }

    fn start_django(database: &Value, model: &str) -> Option<(Django, PathBuf)> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("users {} {number}.json", std::process::id());
        let export = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        let config = json!({"database": database, "model": model, "export": export}).to_string();
        let mut django = Django::start_with("users.py", &[&config])?;
        // It answers when its tables are there.
        django.ask(&json!({"op": "make_hash", "password": "x", "hasher": "default"})).unwrap();
        Some((django, export))
    }

    /// The crate, by the settings that the site exported.
    async fn open(django: Arc<Mutex<Django>>, export: &Path, model: &str) -> Self {
        let settings = Settings::from_file(export).unwrap();
        let store = settings.db_store().await.unwrap();
        let users = settings.connect_users().await.unwrap();
        Self { django, model: model.to_owned(), settings, store, users }
    }

    fn django(&self) -> MutexGuard<'_, Django> {
        self.django.lock().unwrap()
    }

    pub(crate) fn ask(&self, op: &str, mut arguments: Value) -> Value {
        arguments["op"] = op.into();
        let answer = self.django().ask(&arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"));
        serde_json::from_str(&answer).unwrap()
    }

    /// Makes a user; the answer is the primary key, as a session holds it.
    pub(crate) fn create(&self, username: &str, password: Option<&str>, more: Value) -> String {
        let mut arguments = json!({"username": username, "password": password});
        for (name, value) in more.as_object().into_iter().flatten() {
            arguments[name] = value.clone();
        }
        self.ask("create", arguments).as_str().unwrap().to_owned()
    }

    pub(crate) async fn user(&self, pk: &str) -> User {
        self.users.by_id(pk).await.unwrap().unwrap_or_else(|| panic!("{}: nobody has {pk}", self.model))
    }

    /// The hashes that sessions of a user hold: under the key, and under each former one.
    pub(crate) fn hashes(&self, pk: &str) -> Vec<String> {
        serde_json::from_value(self.ask("hashes", json!({"pk": pk}))).unwrap()
    }

    /// The same users to a site with these backends.
    pub(crate) fn with_backends(&self, backends: &[&str]) -> Users {
        let mut settings = self.settings.clone();
        settings.authentication_backends = backends.iter().map(|backend| (*backend).to_owned()).collect();
        Users::new(self.store.pool().clone(), settings)
    }

    /// A stored session with this content, or one that is not stored.
    pub(crate) async fn session(&self, content: Option<&Value>) -> Session {
        let mut session = Session::new();
        let Some(content) = content else { return session };
        for (key, value) in content.as_object().unwrap() {
            session.insert(key, value).unwrap();
        }
        self.store.create(&mut session).await.unwrap();
        self.store.load(session.key().unwrap()).await.unwrap()
    }

    /// What became of a session, in the words of `users.py`.
    pub(crate) async fn after(&self, session: &Session, before: Option<&SessionKey>) -> Map<String, Value> {
        let content: Map<String, Value> = session
            .keys()
            .map(|key| (key.to_string(), session.get::<Value>(&key).unwrap().unwrap()))
            .collect();
        let key = match (session.key(), before) {
            (None, _) => "none",
            (now, before) if now == before => "kept",
            _ => "new",
        };
        let old = match before {
            None => Value::Null,
            Some(key) => self.store.exists(key).await.unwrap().into(),
        };
        let mut after = Map::new();
        after.insert("key".to_owned(), key.into());
        after.insert("content".to_owned(), content.into());
        after.insert("old".to_owned(), old);
        after.insert("modified".to_owned(), session.modified().into());
        after
    }
}

pub(crate) const MODEL_BACKEND: &str = "django.contrib.auth.backends.ModelBackend";
pub(crate) const ALLOW_ALL: &str = "django.contrib.auth.backends.AllowAllUsersModelBackend";

/// The content of a session that is logged in.
pub(crate) fn logged_in(pk: &str, hash: &str) -> Value {
    json!({"_auth_user_id": pk, "_auth_user_backend": MODEL_BACKEND, "_auth_user_hash": hash, "cart": ["tea"]})
}
