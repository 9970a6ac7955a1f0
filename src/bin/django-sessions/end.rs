//! `end`.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Read};
use std::sync::Arc;

use clap::Args;
use django_sessions::backends::StoreError;
use django_sessions::backends::manage::{ManagedStore, StoredSession, Which};
use django_sessions::session::SessionKey;
use django_sessions::settings::Settings;
use serde::Serialize;

use crate::inspect::find;
use crate::place::{Place, describe, note_old, open};
use crate::report::{Failure, Interrupt, Progress, many, persist, say, say_json, sentence};
use crate::stored::{id, user_of};

#[derive(Args)]
#[command(
    after_help = "Without --user, --user-id or --session, the key of the session is read from standard input.\n\
                        A user's sessions are looked for again until none is found: who logs in meanwhile is logged out too.\n\
                        Where the site reads two stores (FALLBACK_ENGINE), they are ended in both.\n\
                        Exit code 1 also if there are sessions that cannot be read, and may be the user's."
)]
pub(crate) struct End {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    user: User,
    /// What `list` calls the session
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["user", "user_id"])]
    session: Option<String>,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
    /// Only say at the end
    #[arg(long)]
    no_progress: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct User {
    /// Of the user with this name
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Of the user with this primary key
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    pub(crate) user_id: Option<String>,
}

impl User {
    /// The primary key as sessions have it.
    pub(crate) async fn find(&self, settings: &Settings) -> Result<Option<String>, Failure> {
        let Some(name) = &self.user else { return Ok(self.user_id.clone()) };
        let users = settings.connect_users().await.map_err(|error| {
            Failure::Refused(format!(
                "{}. The user is looked up in that database; or give the primary key: --user-id",
                sentence(&error)
            ))
        })?;
        match users.by_username(name).await {
            Ok(Some(user)) => Ok(Some(user.id.to_string())),
            Ok(None) => Err(Failure::Refused(format!(
                "there is no user {name:?} in the table {}. If the user was deleted, give the primary key: --user-id",
                settings.auth.table
            ))),
            Err(error) => Err(Failure::Refused(format!(
                "the user could not be looked up: {}. Or give the primary key: --user-id",
                sentence(&error)
            ))),
        }
    }
}

#[derive(Serialize)]
struct Ended {
    ended: u64,
    /// May be the user's, who would be logged in still.
    unreadable: u64,
    dry_run: bool,
}

/// A store, and what it is called.
type Named = (String, Arc<dyn ManagedStore>);

#[derive(Default)]
struct Ending {
    /// Each once, be it in one store or in both.
    ended: HashSet<SessionKey>,
    unreadable: u64,
    /// Why a store was not gone through. The other one was.
    failure: Option<Failure>,
}

/// Sessions are looked for again so often at most: somebody may log in all the time.
const PASSES: usize = 5;

pub(crate) async fn run(options: &End, interrupt: &Interrupt) -> Result<(), Failure> {
    let settings = options.place.read()?;
    let old = options.place.old_besides(&settings);
    let mut stores = Vec::new();
    // The old one first, as a logout does: no request moves a session past us.
    for settings in old.iter().chain([&settings]) {
        stores.push((describe(settings), open(settings).await?));
    }
    let places = stores.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" and ");
    let user = options.user.find(&settings).await?;
    let mut ending = match (&user, &options.session) {
        (None, None) => end_key(options, &stores).await?,
        (Some(user), _) => {
            let is_theirs =
                |session: &StoredSession| session.data.as_ref().ok().and_then(user_of).as_ref() == Some(user);
            end_all(options, &stores, interrupt, PASSES, is_theirs).await
        }
        (None, Some(wanted)) => {
            let is_it = |session: &StoredSession| id(&session.name) == *wanted;
            // In the old store once more: a process with the settings of before may have moved it back.
            end_all(options, &stores, interrupt, stores.len(), is_it).await
        }
    };
    if user.is_none() {
        ending.unreadable = 0;
        if ending.ended.is_empty() && ending.failure.is_none() && !interrupt.is_pressed() {
            return Err(Failure::Refused(match &options.session {
                None => format!("there is no such session in {places}: it has ended"),
                Some(wanted) => format!(
                    "there is no session {wanted} in {places}: it has ended, or that is not what `list` calls it"
                ),
            }));
        }
    }
    if !ending.ended.is_empty() || ending.failure.is_none() {
        ending.report(options, &places)?;
    }
    if old.is_none() {
        note_old(&settings);
    }
    ending.failure.map_or(Ok(()), Err)?;
    interrupt.end()?;
    match ending.unreadable {
        0 => Ok(()),
        number => Err(Failure::Refused(format!(
            "{} could not be read and may be this user's: signed with another key, or in a format that only the site \
             reads (LEGACY, PICKLE_MIGRATION). `list` says which, and `end --session` ends one. A new password ends all \
             sessions of a user",
            many(number, "session")
        ))),
    }
}

async fn end_key(options: &End, stores: &[Named]) -> Result<Ending, Failure> {
    if io::stdin().is_terminal() {
        eprintln!("Type the key of the session, or name a user with --user. Then press Enter:");
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(1024)
        .read_to_string(&mut text)
        .map_err(|error| Failure::Usage(format!("cannot read: {error}")))?;
    let key = SessionKey::from_stored_name(text.trim());
    if key.as_str().chars().count() < 8 {
        return Err(Failure::Usage(
            "no session key came on standard input: pipe one in, or say --user, --user-id or --session"
                .into(),
        ));
    }
    let mut ending = Ending::default();
    // The old one again, as above.
    for (name, store) in stores.iter().chain(&stores[..stores.len() - 1]) {
        let done = async {
            let Some(found) = find(&**store, &key).await? else { return Ok(()) };
            if !options.dry_run {
                store.delete(&found.name).await?;
            }
            ending.ended.insert(key.clone());
            Ok::<_, StoreError>(())
        };
        if let Err(error) = done.await {
            ending.failure = Some(failure_of(name, &error));
        }
    }
    Ok(ending)
}

async fn end_all(
    options: &End,
    stores: &[Named],
    interrupt: &Interrupt,
    passes: usize,
    is_wanted: impl Fn(&StoredSession) -> bool,
) -> Ending {
    let mut progress = Progress::new("Looked at", options.no_progress);
    let mut ending = Ending::default();
    let passes = if options.dry_run { 1 } else { passes };
    for _ in 0..passes {
        progress.begin(if progress.wants_total() { total_of(stores).await } else { None });
        ending.unreadable = 0;
        let mut is_found = false;
        for (name, store) in stores {
            match ending.go_through(options, &**store, interrupt, &mut progress, &is_wanted).await {
                Ok(found) => is_found |= found,
                Err(error) => ending.failure = Some(failure_of(name, &error)),
            }
        }
        if !is_found || ending.failure.is_some() || interrupt.is_pressed() {
            break;
        }
    }
    progress.finish();
    ending
}

/// None if a store does not say.
async fn total_of(stores: &[Named]) -> Option<u64> {
    let mut total = 0;
    for (_, store) in stores {
        total += store.count().await.ok()?;
    }
    Some(total)
}

fn failure_of(name: &str, error: &StoreError) -> Failure {
    Failure::Refused(format!("{name}: {}. Try again when it works", sentence(error)))
}

impl Ending {
    fn report(&self, options: &End, places: &str) -> Result<(), Failure> {
        let (ended, unreadable) = (self.ended.len() as u64, self.unreadable);
        if options.json {
            return say_json(&Ended { ended, unreadable, dry_run: options.dry_run });
        }
        let verb = if options.dry_run { "would be ended" } else { "ended" };
        say(format!("{} {verb} in {places}.", many(ended, "session")))
    }

    /// Ends those that are wanted. Returns whether there were any.
    async fn go_through(
        &mut self,
        options: &End,
        store: &dyn ManagedStore,
        interrupt: &Interrupt,
        progress: &mut Progress,
        is_wanted: impl Fn(&StoredSession) -> bool,
    ) -> Result<bool, StoreError> {
        let mut is_found = false;
        let mut listing = store.list(Which::Live, 500, "");
        while !interrupt.is_pressed()
            && let Some(page) = persist(interrupt, async || listing.next_page().await).await?
        {
            progress.advance(page.len() as u64);
            for session in page {
                self.unreadable += u64::from(session.data.is_err());
                if !is_wanted(&session) {
                    continue;
                }
                if !options.dry_run {
                    persist(interrupt, async || store.delete(&session.name).await).await?;
                }
                is_found = true;
                self.ended.insert(session.name);
            }
        }
        Ok(is_found)
    }
}
