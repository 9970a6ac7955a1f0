//! `end`.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use django_sessions::backends::manage::{ManagedStore, StoredSession, Which};
use django_sessions::session::{Data, SessionKey};
use django_sessions::settings::Settings;
use serde::Serialize;

use crate::inspect::find;
use crate::place::{Place, describe};
use crate::report::{Failure, Interrupt, Progress, many, persist, say, say_json, sentence};
use crate::stored::{id, user_of};

#[derive(Args)]
#[command(
    after_help = "Without --user, --user-id or --session, the key of the session is read from standard input.\n\
                        A user's sessions are looked for again until none is found: who logs in meanwhile is logged out too."
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
    dry_run: bool,
}

/// Sessions are looked for again so often at most: somebody may log in all the time.
const PASSES: usize = 5;

pub(crate) async fn run(options: &End, interrupt: &Interrupt) -> Result<(), Failure> {
    let (settings, store) = options.place.open().await?;
    let user = options.user.find(&settings).await?;
    let ended = match (&user, &options.session) {
        (None, None) => end_key(options, &settings, &*store).await?,
        (Some(user), _) => {
            let is_theirs = |session: &_| data_of(session).and_then(user_of).as_ref() == Some(user);
            let passes = if options.dry_run { 1 } else { PASSES };
            end_all(options, &*store, interrupt, passes, is_theirs).await?
        }
        (None, Some(wanted)) => {
            let ended =
                end_all(options, &*store, interrupt, 1, |session| id(&session.name) == *wanted).await?;
            if ended == 0 && !interrupt.is_pressed() {
                return Err(Failure::Refused(format!(
                    "there is no session {wanted} in {}: it has ended, or that is not what `list` calls it",
                    describe(&settings)
                )));
            }
            ended
        }
    };
    if options.json {
        say_json(&Ended { ended, dry_run: options.dry_run })?;
    } else {
        let verb = if options.dry_run { "would be ended" } else { "ended" };
        say(format!("{} {verb} in {}.", many(ended, "session"), describe(&settings)))?;
    }
    interrupt.end()
}

fn data_of(session: &StoredSession) -> Option<&Data> {
    session.data.as_ref().ok()
}

async fn end_key(options: &End, settings: &Settings, store: &dyn ManagedStore) -> Result<u64, Failure> {
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
    if let Some(found) = find(store, &key).await? {
        if !options.dry_run {
            store.delete(&found.name).await?;
        }
        return Ok(1);
    }
    Err(Failure::Refused(format!("there is no such session in {}: it has ended", describe(settings))))
}

async fn end_all(
    options: &End,
    store: &dyn ManagedStore,
    interrupt: &Interrupt,
    passes: usize,
    is_wanted: impl Fn(&StoredSession) -> bool,
) -> Result<u64, Failure> {
    let mut progress = Progress::new("Looked at", options.no_progress);
    let mut ended = 0;
    for _ in 0..passes {
        let total = if progress.wants_total() { Some(store.count().await?) } else { None };
        progress.begin(total);
        let mut found = 0;
        let mut listing = store.list(Which::Live, 500, "");
        while !interrupt.is_pressed()
            && let Some(page) = persist(interrupt, async || listing.next_page().await).await?
        {
            for session in page.iter().filter(|session| is_wanted(session)) {
                if !options.dry_run {
                    persist(interrupt, async || store.delete(&session.name).await).await?;
                }
                found += 1;
            }
            progress.advance(page.len() as u64);
        }
        ended += found;
        if found == 0 || interrupt.is_pressed() {
            break;
        }
    }
    progress.finish();
    Ok(ended)
}
