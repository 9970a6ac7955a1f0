//! A request's session, whatever framework the request came through.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex as PlainMutex, MutexGuard as PlainGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
#[cfg(feature = "_sql")]
use tokio::sync::MutexGuard as StateGuard;
use tokio::sync::{Mutex, OwnedMutexGuard};

#[cfg(feature = "_sql")]
use super::auth::Visitor;
use super::cookies;
use crate::backends::{SessionStore, StoreError};
#[cfg(feature = "_sql")]
use crate::contrib::auth::Users;
use crate::contrib::csrf::CsrfSecret;
#[cfg(feature = "_sql")]
use crate::contrib::devices::{self, Client, Devices};
use crate::session::{self, Data, SessionKey};
use crate::settings::Settings;

/// A store that many requests share: made of any store, or of an `Arc` of one.
///
/// ```
/// # #[cfg(feature = "signed_cookies")] {
/// use std::sync::Arc;
///
/// use django_sessions::backends::{SessionStore, signed_cookies::SignedCookieStore};
/// use django_sessions::web::SharedStore;
/// # let settings = django_sessions::settings::Settings::new(django_sessions::crypto::SecretKeys::new("secret"));
///
/// let store = SignedCookieStore::new(settings);
/// let shared = SharedStore::from(store.clone());
/// let shared = SharedStore::from(Arc::new(store) as Arc<dyn SessionStore>); // as `Settings::connect` gives it
/// # }
/// ```
#[derive(Clone)]
pub struct SharedStore(pub(crate) Arc<dyn SessionStore>);

impl<S: SessionStore + 'static> From<S> for SharedStore {
    fn from(store: S) -> Self {
        Self(Arc::new(store))
    }
}

impl From<Arc<dyn SessionStore>> for SharedStore {
    fn from(store: Arc<dyn SessionStore>) -> Self {
        Self(store)
    }
}

/// What a site's requests share: where sessions are, and how their cookie looks.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) settings: Arc<Settings>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    #[cfg(feature = "_sql")]
    pub(crate) users: Option<Users>,
    #[cfg(feature = "_sql")]
    pub(crate) devices: Option<Devices>,
}

impl Site {
    pub(crate) fn new(store: Arc<dyn SessionStore>, settings: Arc<Settings>) -> Self {
        Self {
            store,
            settings,
            clock: Arc::new(Timestamp::now),
            #[cfg(feature = "_sql")]
            users: None,
            #[cfg(feature = "_sql")]
            devices: None,
        }
    }

    pub(crate) fn set_clock(&mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) {
        self.clock = Arc::new(clock);
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// `request.session`: read from the store when it is first used, and saved after the handler if it was changed.
///
/// Cheap to clone; clones are the same session. Changes that are made once the response has gone out, as from a
/// streamed body, are lost, as in Django.
///
/// ```
/// use django_sessions::backends::StoreError;
/// use django_sessions::web::Session;
///
/// async fn add_to_cart(session: Session, article: String) -> Result<String, StoreError> {
///     let mut session = session.lock().await?; // for several reads and writes
///     let mut cart: Vec<String> = session.get("cart")?.unwrap_or_default();
///     cart.push(article);
///     session.insert("cart", &cart)?;
///     Ok(format!("{} in the cart", cart.len()))
/// }
///
/// async fn log_out(session: Session) -> Result<(), StoreError> {
///     session.flush().await
/// }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    site: Site,
    /// Whether the request brought a cookie at all: if it is worth nothing, it is taken away.
    has_cookie: bool,
    /// The session's key, and the session once it is loaded.
    state: Arc<Mutex<State>>,
    /// The key under which it is stored besides, until the browser is told the new one.
    replaced: PlainMutex<Option<SessionKey>>,
    #[cfg(feature = "_sql")]
    visitor: Mutex<Visitor>,
    #[cfg(feature = "_sql")]
    device: PlainMutex<Note>,
    /// What a login made, until a CSRF layer takes it.
    csrf_secret: PlainMutex<Option<CsrfSecret>>,
}

/// Goes with a request, to the row of its session.
#[cfg(feature = "_sql")]
#[derive(Default)]
struct Note {
    client: Client,
    /// The key whose row went at the logout.
    forgotten: Option<SessionKey>,
}

enum State {
    Unused { key: Option<SessionKey>, modified: bool },
    Loaded(session::Session),
}

impl Session {
    /// The session that the value of the session cookie stands for.
    pub(crate) fn new(site: &Site, cookie: Option<&str>) -> Self {
        let state = State::Unused { key: cookie.and_then(SessionKey::new), modified: false };
        Self(Arc::new(Inner {
            site: site.clone(),
            has_cookie: cookie.is_some(),
            state: Arc::new(Mutex::new(state)),
            replaced: PlainMutex::default(),
            #[cfg(feature = "_sql")]
            visitor: Mutex::default(),
            #[cfg(feature = "_sql")]
            device: PlainMutex::default(),
            csrf_secret: PlainMutex::default(),
        }))
    }

    #[cfg(feature = "_sql")]
    pub(super) fn site(&self) -> &Site {
        &self.0.site
    }

    #[cfg(feature = "_sql")]
    pub(super) fn visitor(&self) -> &Mutex<Visitor> {
        &self.0.visitor
    }

    pub(super) fn csrf_secret(&self) -> PlainGuard<'_, Option<CsrfSecret>> {
        self.0.csrf_secret.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_csrf_secret(&self) -> Option<CsrfSecret> {
        self.csrf_secret().take()
    }

    /// Says that the session got a new key in place of `old`, under which it is stored until the response is on its way.
    #[cfg(feature = "_sql")]
    pub(super) fn replaces(&self, old: Option<SessionKey>) {
        *self.0.replaced.lock().unwrap_or_else(PoisonError::into_inner) = old;
    }

    /// The session itself, loaded if it is not yet, for several reads and writes at once.
    ///
    /// Others who ask for it wait until the guard is dropped: drop it before the handler returns.
    ///
    /// # Errors
    /// When the store fails. A session that cannot be read is an empty one, as in Django.
    pub async fn lock(&self) -> Result<SessionGuard, StoreError> {
        let mut state = self.0.state.clone().lock_owned().await;
        state.load(&*self.0.site.store).await?;
        Ok(SessionGuard(state))
    }

    /// The same once the handler is done, when nobody waits for it: whoever still holds it, as a streamed body can,
    /// would keep the response waiting for ever.
    pub(crate) async fn lock_at_end(&self) -> Result<SessionGuard, StoreError> {
        let mut state = self.0.state.clone().try_lock_owned().map_err(|_| StoreError::InUse)?;
        state.load(&*self.0.site.store).await?;
        Ok(SessionGuard(state))
    }

    /// The value under `key` as a `T`; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails, or the value is no `T`.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        Ok(self.lock().await?.get(key)?)
    }

    /// Puts `value` under `key`.
    ///
    /// # Errors
    /// When the store fails, or `value` has no JSON form.
    pub async fn insert<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        Ok(self.lock().await?.insert(key, value)?)
    }

    /// Takes the value under `key` out, and says whether there was one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.lock().await?.remove(key).is_some())
    }

    /// Says that the session is to be saved, whether a value is changed or not; as when it is to live on. It is not loaded
    /// for that.
    pub async fn mark_modified(&self) {
        match &mut *self.0.state.lock().await {
            State::Unused { modified, .. } => *modified = true,
            State::Loaded(session) => session.mark_modified(),
        }
    }

    /// The key that the session has; until the first use that is the one of the cookie, whether it is stored or not.
    pub async fn key(&self) -> Option<SessionKey> {
        match &*self.0.state.lock().await {
            State::Unused { key, .. } => key.clone(),
            State::Loaded(session) => session.key().cloned(),
        }
    }

    /// Gives the session a new key and keeps its values, as at every login.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cycle_key(&self) -> Result<(), StoreError> {
        let mut session = self.lock().await?;
        self.0.site.store.cycle_key(&mut session).await
    }

    /// Takes all values out; the key stays. To end a session, use [`flush`](Self::flush).
    pub async fn clear(&self) {
        self.0.state.lock().await.without_loading().clear();
    }

    /// Ends the session, as a logout does.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.0.state.lock().await;
        self.0.site.store.flush(state.without_loading()).await
    }

    /// The settings of the site.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.0.site.settings
    }

    /// Where the site keeps its sessions.
    pub fn store(&self) -> &Arc<dyn SessionStore> {
        &self.0.site.store
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.site.clock)()
    }

    /// What is due when the handler is done: saves the session and says what becomes of the response
    /// (`SessionMiddleware.process_response`).
    pub(crate) async fn finish(&self, is_server_error: bool) -> Result<Finished, StoreError> {
        // Whoever still holds the session, as a streamed body can, would keep this response waiting for ever.
        let mut state = self.0.state.try_lock().map_err(|_| StoreError::InUse)?;
        let replaced = self.0.replaced.lock().unwrap_or_else(PoisonError::into_inner).take();
        #[cfg(feature = "_sql")]
        let is_kept = !is_server_error || replaced.is_some();
        let finished = self.save(&mut state, replaced, is_server_error).await?;
        #[cfg(feature = "_sql")]
        if is_kept {
            self.record_device(state).await;
        }
        Ok(finished)
    }

    async fn save(
        &self,
        state: &mut State,
        replaced: Option<SessionKey>,
        is_server_error: bool,
    ) -> Result<Finished, StoreError> {
        let Site { store, settings, .. } = &self.0.site;
        let (used, has_new_key) = (state.used(), replaced.is_some());
        if self.0.has_cookie && used.is_empty {
            self.retire(replaced).await?;
            return Finished::with_cookie(cookies::delete_cookie(settings), true);
        }
        let is_due = (used.modified || settings.session_save_every_request) && !used.is_empty;
        if !(is_due && !is_server_error || has_new_key) {
            return Ok(Finished { vary: used.accessed, cookie: None });
        }
        let session = state.load(&**store).await?;
        // With an error of the server it stays as it was when it got its new key, which the browser must know.
        if !is_server_error {
            store.save(session).await?;
        }
        let cookie = cookies::set_cookie(session, settings, self.now())?;
        self.retire(replaced).await?;
        match cookie {
            Some(cookie) => Finished::with_cookie(cookie, true),
            None => Ok(Finished { vary: true, cookie: None }),
        }
    }

    /// What the request says of its device, for the row of its session.
    #[cfg(feature = "_sql")]
    pub(crate) fn note_client(&self, client: Client) {
        self.note().client = client;
    }

    #[cfg(feature = "_sql")]
    fn note(&self) -> PlainGuard<'_, Note> {
        self.0.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody logs in with this request: the row is due whenever it was written last.
    #[cfg(feature = "_sql")]
    pub(super) fn note_login(&self) {
        let mut note = self.note();
        note.client = std::mem::take(&mut note.client).logged_in();
    }

    /// Removes the row of a session that was ended under this key. A failure costs the row, and not the response.
    #[cfg(feature = "_sql")]
    pub(super) async fn forget_device(&self, key: Option<SessionKey>) {
        let Site { store, devices, .. } = &self.0.site;
        let (Some(devices), Some(key)) = (devices, key) else { return };
        match devices.forget(&**store, &key).await {
            Ok(()) => self.note().forgotten = Some(key),
            Err(error) => devices::log_failure(&error),
        }
    }

    /// Writes the session's row, if one is due. A session that was not loaded is not used.
    #[cfg(feature = "_sql")]
    async fn record_device(&self, state: StateGuard<'_, State>) {
        let Site { store, devices: Some(devices), .. } = &self.0.site else { return };
        let State::Loaded(session) = &*state else { return };
        let visit = {
            let note = self.note();
            let is_forgotten = note.forgotten.is_some() && note.forgotten.as_ref() == note.client.cookie();
            devices
                .look(&**store, session, &note.client)
                .filter(|visit| !(is_forgotten && visit.is_of_nobody()))
        };
        drop(state);
        if let Some(visit) = visit
            && let Err(error) = devices.write(&visit).await
        {
            devices::log_failure(&error);
        }
    }

    /// The table of devices, if the layer has one.
    #[cfg(feature = "_sql")]
    pub fn devices(&self) -> Option<&Devices> {
        self.0.site.devices.as_ref()
    }

    /// Deletes the session under the key that it had before.
    async fn retire(&self, key: Option<SessionKey>) -> Result<(), StoreError> {
        match key {
            Some(key) => self.0.site.store.delete(&key).await.map(drop),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("site", &self.0.site).finish_non_exhaustive()
    }
}

/// What the handler did with the session.
struct Used {
    accessed: bool,
    modified: bool,
    is_empty: bool,
}

impl State {
    async fn load(&mut self, store: &dyn SessionStore) -> Result<&mut session::Session, StoreError> {
        if let Self::Unused { key, modified } = self {
            let mut session = match key {
                Some(key) => store.load_or_empty(key).await?,
                None => session::Session::with_data(None, Data::new()),
            };
            if *modified {
                session.mark_modified();
            }
            *self = Self::Loaded(session);
        }
        match self {
            Self::Loaded(session) => Ok(session),
            Self::Unused { .. } => unreachable!("it was loaded just now"),
        }
    }

    /// The session for those who want none of its values: what is stored need not be read.
    fn without_loading(&mut self) -> &mut session::Session {
        if let Self::Unused { key, .. } = self {
            *self = Self::Loaded(session::Session::with_data(key.take(), Data::new()));
        }
        match self {
            Self::Loaded(session) => session,
            Self::Unused { .. } => unreachable!("it was replaced just now"),
        }
    }

    fn used(&self) -> Used {
        match self {
            Self::Unused { key, modified } => {
                Used { accessed: false, modified: *modified, is_empty: key.is_none() }
            }
            Self::Loaded(session) => Used {
                accessed: session.accessed(),
                modified: session.modified(),
                is_empty: session.is_empty(),
            },
        }
    }
}

/// A loaded session; nobody else has it meanwhile.
pub struct SessionGuard(OwnedMutexGuard<State>);

impl Deref for SessionGuard {
    type Target = session::Session;

    fn deref(&self) -> &session::Session {
        match &*self.0 {
            State::Loaded(session) => session,
            State::Unused { .. } => unreachable!("a guard is made of a loaded session"),
        }
    }
}

impl DerefMut for SessionGuard {
    fn deref_mut(&mut self) -> &mut session::Session {
        match &mut *self.0 {
            State::Loaded(session) => session,
            State::Unused { .. } => unreachable!("a guard is made of a loaded session"),
        }
    }
}

impl fmt::Debug for SessionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// What becomes of the response.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// Whether the response depends on the cookie.
    pub(crate) vary: bool,
    /// The value of a `Set-Cookie` header.
    pub(crate) cookie: Option<String>,
}

impl Finished {
    /// A cookie that a header can hold.
    pub(crate) fn with_cookie(cookie: String, vary: bool) -> Result<Self, StoreError> {
        match cookie.bytes().any(|byte| byte.is_ascii_control()) {
            true => Err(StoreError::Cookie),
            false => Ok(Self { vary, cookie: Some(cookie) }),
        }
    }
}

/// The value of `Vary` with `Cookie` in it (`django.utils.cache.patch_vary_headers`); `None` if it is there already.
pub(crate) fn vary_on_cookie(present: &str) -> Option<String> {
    let fields: Vec<&str> = present.split(',').map(str::trim).filter(|field| !field.is_empty()).collect();
    if fields.contains(&"*") {
        return Some("*".to_owned());
    }
    if fields.iter().any(|field| field.eq_ignore_ascii_case("cookie")) {
        return None;
    }
    Some([fields, vec!["Cookie"]].concat().join(", "))
}
