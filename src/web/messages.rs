//! A request's messages, whatever framework the request came through: Django's `MessageMiddleware`.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::cookies::{self, Attributes};
use super::session::{Finished, Session};
use crate::backends::StoreError;
use crate::contrib::messages::{self, COOKIE_NAME, CookieUpdate, Level, Message, Storage, store_in_session};
use crate::settings::Settings;

/// What a site's requests share.
#[derive(Debug)]
pub(crate) struct MessagesSite {
    pub(crate) settings: Arc<Settings>,
    pub(crate) storage: Storage,
}

/// A request's messages: those that were left for it, and those that it leaves, stored after the handler.
///
/// Nothing is read before they are asked for. Cheap to clone; clones are the same messages.
///
/// ```
/// use django_sessions::backends::StoreError;
/// use django_sessions::web::Messages;
///
/// async fn order(messages: Messages) {
///     messages.success("Your order is placed.").await; // the next page shows it
/// }
///
/// async fn page(messages: Messages) -> Result<String, StoreError> {
///     let shown = messages.take().await?;
///     Ok(shown.iter().map(|message| format!("{}: {}\n", message.tags(), message.text)).collect())
/// }
/// ```
#[derive(Clone)]
pub struct Messages(Arc<Inner>);

struct Inner {
    site: Arc<MessagesSite>,
    cookie: Option<String>,
    session: Option<Session>,
    state: Mutex<State>,
}

struct State {
    messages: messages::Messages,
    is_loaded: bool,
}

impl Messages {
    pub(crate) fn new(site: &Arc<MessagesSite>, cookie_header: &str, session: Option<Session>) -> Self {
        Self(Arc::new(Inner {
            site: site.clone(),
            cookie: cookies::get(cookie_header, COOKIE_NAME).map(|value| value.into_owned()),
            session,
            state: Mutex::new(State { messages: messages::Messages::new(site.storage), is_loaded: false }),
        }))
    }

    /// Leaves a message for the next page that shows them, this one included.
    pub async fn add(&self, level: Level, text: impl Into<String>) {
        self.0.state.lock().await.messages.add(level, text);
    }

    /// Leaves a message made by hand: with tags, or with HTML.
    pub async fn push(&self, message: Message) {
        self.0.state.lock().await.messages.push(message);
    }

    /// [`add`](Self::add) at the level `DEBUG`, which is not recorded unless [`set_level`](Self::set_level) says so.
    pub async fn debug(&self, text: impl Into<String>) {
        self.add(Level::DEBUG, text).await;
    }

    /// [`add`](Self::add) at the level `INFO`.
    pub async fn info(&self, text: impl Into<String>) {
        self.add(Level::INFO, text).await;
    }

    /// [`add`](Self::add) at the level `SUCCESS`.
    pub async fn success(&self, text: impl Into<String>) {
        self.add(Level::SUCCESS, text).await;
    }

    /// [`add`](Self::add) at the level `WARNING`.
    pub async fn warning(&self, text: impl Into<String>) {
        self.add(Level::WARNING, text).await;
    }

    /// [`add`](Self::add) at the level `ERROR`.
    pub async fn error(&self, text: impl Into<String>) {
        self.add(Level::ERROR, text).await;
    }

    /// Records only messages of this level and above from here on.
    pub async fn set_level(&self, level: Level) {
        self.0.state.lock().await.messages.set_level(level);
    }

    /// All messages, to be shown now: they are not stored again.
    ///
    /// # Errors
    /// When the messages are in the session, and its store fails, or there is no layer of sessions.
    pub async fn take(&self) -> Result<Vec<Message>, StoreError> {
        let mut state = self.0.state.lock().await;
        self.0.load(&mut state, false).await?;
        Ok(state.messages.take().to_vec())
    }

    /// How many there are, shown or not.
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    pub async fn count(&self) -> Result<usize, StoreError> {
        let mut state = self.0.state.lock().await;
        self.0.load(&mut state, false).await?;
        Ok(state.messages.len())
    }

    /// `MessageMiddleware.process_response`.
    pub(crate) async fn finish(&self) -> Result<Finished, StoreError> {
        let Inner { site, session, state, .. } = &*self.0;
        let mut state = state.lock().await;
        if !state.messages.is_due() {
            return Ok(Finished::default());
        }
        self.0.load(&mut state, true).await?;
        let messages = std::mem::replace(&mut state.messages, messages::Messages::new(site.storage));
        let now = Timestamp::now();
        let stored = messages.store_in_cookie(&site.settings.secret_keys, now)?;
        if let Some(messages) = stored.for_session {
            let mut session = session.as_ref().ok_or(StoreError::NoSession)?.lock_at_end().await?;
            store_in_session(&messages, &mut session)?;
        }
        let attributes =
            Attributes { name: COOKIE_NAME, path: "/", ..Attributes::of_session(&site.settings) };
        match stored.cookie {
            CookieUpdate::None => Ok(Finished::default()),
            CookieUpdate::Delete => Finished::with_cookie(attributes.delete(), false),
            CookieUpdate::Set(value) => {
                Finished::with_cookie(attributes.set(&value, None, now).ok_or(StoreError::Cookie)?, false)
            }
        }
    }
}

impl Inner {
    async fn load(&self, state: &mut State, at_end: bool) -> Result<(), StoreError> {
        if state.is_loaded {
            return Ok(());
        }
        if state.messages.load_cookie(&self.site.settings.secret_keys, self.cookie.as_deref()) {
            let session = self.session.as_ref().ok_or(StoreError::NoSession)?;
            let session = if at_end { session.lock_at_end().await? } else { session.lock().await? };
            state.messages.load_session(&session);
        }
        state.is_loaded = true;
        Ok(())
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messages(..)")
    }
}
