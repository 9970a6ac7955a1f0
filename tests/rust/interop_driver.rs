//! The Rust half of `tests/interop/test_matrix.py`: opens the store that a settings file names, as a service does, and
//! does with it what each line of standard input asks. One JSON object a line in, one out.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::serializers::json::{Object, RawValue};
use django_sessions::session::{Expiry, Session, SessionKey};
use django_sessions::settings::Settings;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

type Answer = Result<Value, Box<dyn Error>>;

struct Driver {
    settings: Settings,
    store: Arc<dyn SessionStore>,
    /// Sessions of requests that began before another's ended.
    held: HashMap<String, Session>,
}

fn text<'a>(question: &'a Value, field: &str) -> Result<&'a str, Box<dyn Error>> {
    question[field].as_str().ok_or_else(|| format!("the field {field:?} is missing").into())
}

fn key(question: &Value) -> Result<SessionKey, Box<dyn Error>> {
    SessionKey::new(text(question, "key")?).ok_or_else(|| "that is no session key".into())
}

fn timestamp(seconds: &Value) -> Result<Timestamp, Box<dyn Error>> {
    let seconds = seconds.as_f64().ok_or("a number of seconds is missing")?;
    Ok(Timestamp::from_microsecond((seconds * 1e6).round() as i64)?)
}

fn seconds(moment: Timestamp) -> f64 {
    moment.as_microsecond() as f64 / 1e6
}

/// A value that shows whether it is all of one piece; the same as `whole` of `django_child.py`.
fn whole(number: u64) -> Value {
    let text = format!("rust {number} ").repeat(150);
    json!({ "text": text, "sum": hash(&text) })
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_whole(session: &Session) -> Result<(), Box<dyn Error>> {
    let value: Value = session.get("value")?.ok_or("a session without its value")?;
    let same = value["text"].as_str().is_some_and(|text| value["sum"] == hash(text));
    if same { Ok(()) } else { Err(format!("torn: {value}").into()) }
}

/// The error and all that caused it.
fn whole_text(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

impl Driver {
    async fn open(path: &str) -> Result<Self, Box<dyn Error>> {
        let settings = Settings::from_file(path)?;
        let store = settings.connect().await?;
        Ok(Self { settings, store, held: HashMap::new() })
    }

    async fn answer(&mut self, question: &Value) -> Answer {
        match text(question, "op")? {
            "load" => self.load(question).await,
            "create" => self.create(question).await,
            "change" => self.change(question).await,
            "exists" => Ok(json!({ "exists": self.store.exists(&key(question)?).await? })),
            "delete" => {
                self.store.delete(&key(question)?).await?;
                Ok(json!({}))
            }
            "hold" => {
                let session = self.store.load(&key(question)?).await?;
                self.held.insert(text(question, "key")?.to_owned(), session);
                Ok(json!({}))
            }
            "save_held" => self.save_held(question).await,
            "set_expiry" => self.set_expiry(question).await,
            "expiry" => self.expiry(question).await,
            "loop" => self.turns(question).await,
            "count" => self.count(question).await,
            "save_until_deleted" => self.save_until_deleted(question).await,
            other => Err(format!("unknown op {other:?}").into()),
        }
    }

    async fn load(&self, question: &Value) -> Answer {
        let session = self.store.load(&key(question)?).await?;
        let values = session.data().iter().map(|(key, value)| match value.to_json() {
            Ok(text) => json!({ "key": key, "json": String::from_utf8_lossy(text.as_bytes()) }),
            Err(error) => json!({ "key": key, "error": whole_text(&error) }),
        });
        Ok(json!({ "values": values.collect::<Vec<_>>() }))
    }

    async fn create(&self, question: &Value) -> Answer {
        let mut session = Session::with_data(None, Object::parse(text(question, "json")?.as_bytes())?);
        self.store.save(&mut session).await?;
        named(&session)
    }

    async fn change(&self, question: &Value) -> Answer {
        let mut session = self.store.load(&key(question)?).await?;
        session.insert_raw(text(question, "name")?, RawValue::from_text(text(question, "json")?)?);
        self.store.save(&mut session).await?;
        named(&session)
    }

    async fn save_held(&mut self, question: &Value) -> Answer {
        let mut session = self.held.remove(text(question, "key")?).ok_or("no such session is held")?;
        session.insert("late", &true)?;
        match self.store.save(&mut session).await {
            Ok(()) => Ok(json!({ "saved": true })),
            Err(StoreError::Deleted) => Ok(json!({ "saved": false })),
            Err(error) => Err(error.into()),
        }
    }

    async fn set_expiry(&self, question: &Value) -> Answer {
        let how = &question["how"];
        let before = seconds(Timestamp::now());
        let expiry = match (how["seconds"].as_i64(), how["delta"].as_i64()) {
            (Some(0), _) => Some(Expiry::BrowserClose),
            (Some(seconds), _) => Some(Expiry::Seconds(seconds)),
            // Django adds it to now at once.
            (_, Some(delta)) => Some(Expiry::At(Timestamp::now() + Duration::from_secs(delta.try_into()?))),
            _ if how["at"].is_null() => None,
            _ => Some(Expiry::At(timestamp(&how["at"])?)),
        };
        let mut session = Session::new();
        session.insert("counter", &1)?;
        session.set_expiry(expiry);
        self.store.save(&mut session).await?;
        let key = session.key().ok_or("a saved session has a key")?.as_str();
        Ok(json!({ "key": key, "before": before, "after": seconds(Timestamp::now()) }))
    }

    async fn expiry(&self, question: &Value) -> Answer {
        let now = timestamp(&question["now"])?;
        let session = self.store.load(&key(question)?).await?;
        Ok(json!({
            "there": session.key().is_some() && session.contains_key("counter"),
            "age": session.expiry_age(&self.settings, now)?,
            "date": seconds(session.expiry_date(&self.settings, now)?),
            "at_browser_close": session.expires_at_browser_close(&self.settings)?,
        }))
    }

    /// Reads what is there, checks it, and replaces it.
    async fn turns(&self, question: &Value) -> Answer {
        let key = key(question)?;
        for number in 0..question["rounds"].as_u64().ok_or("no rounds")? {
            let mut session = self.store.load(&key).await?;
            check_whole(&session)?;
            session.insert("value", &whole(number))?;
            self.store.save(&mut session).await?;
        }
        Ok(json!({ "key": key.as_str() }))
    }

    /// Increments a key of its own, while others increment theirs.
    async fn count(&self, question: &Value) -> Answer {
        let (key, name) = (key(question)?, text(question, "name")?);
        for _ in 0..question["rounds"].as_u64().ok_or("no rounds")? {
            let mut session = self.store.load(&key).await?;
            let before = session.get::<u64>(name)?.unwrap_or(0);
            session.insert(name, &(before + 1))?;
            self.store.save(&mut session).await?;
        }
        Ok(json!({}))
    }

    /// Saves again and again the session that it holds, until told that it is gone.
    async fn save_until_deleted(&mut self, question: &Value) -> Answer {
        let mut session = self.held.remove(text(question, "key")?).ok_or("no such session is held")?;
        let deadline = Instant::now() + Duration::from_secs_f64(question["within"].as_f64().unwrap_or(1.0));
        let mut saves = 0;
        while Instant::now() < deadline {
            session.insert("value", &whole(saves))?;
            match self.store.save(&mut session).await {
                // SQLite knows no turns: the other one would not get the lock.
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(StoreError::Deleted) => return Ok(json!({ "deleted": true, "saves": saves })),
                Err(error) => return Err(error.into()),
            }
            saves += 1;
        }
        Ok(json!({ "deleted": false, "saves": saves }))
    }
}

fn named(session: &Session) -> Answer {
    Ok(json!({ "key": session.key().ok_or("a saved session has a key")?.as_str() }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: interop_driver SETTINGS_FILE")?;
    let mut driver = match Driver::open(&path).await {
        Ok(driver) => driver,
        Err(error) => {
            eprintln!("{}", whole_text(error.as_ref()));
            std::process::exit(1);
        }
    };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match driver.answer(&serde_json::from_str(&line?)?).await {
            Ok(answer) => answer,
            Err(error) => json!({ "error": whole_text(error.as_ref()) }),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}
