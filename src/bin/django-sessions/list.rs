//! `list`.

use clap::{Args, ValueEnum};
use django_sessions::backends::manage::{StoredSession, Which};
use django_sessions::settings::Settings;
use jiff::Timestamp;

use crate::end::User;
use crate::place::{Place, describe, note_old};
use crate::report::{self, Colours, Failure, Interrupt, Progress, ago, bytes, many, persist, say, say_json};
use crate::stored::Shown;

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    user: User,
    /// Only those in which nobody is logged in
    #[arg(long, conflicts_with_all = ["user", "user_id"])]
    anonymous: bool,
    /// Also those that are over and not deleted yet
    #[arg(long)]
    all: bool,
    /// In which order; what is largest, newest or ends first comes first
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Show at most so many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Show session keys, with which their reader can take the sessions over
    #[arg(long)]
    show_keys: bool,
    /// One line of JSON a session
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Size,
    Saved,
    Ends,
}

pub(crate) async fn run(options: &List, interrupt: &Interrupt) -> Result<(), Failure> {
    let (settings, store) = options.place.open().await?;
    let user = options.user.find(&settings).await?;
    let which = if options.all { Which::All } else { Which::Live };
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut list = Lines { options, limit, kept: Vec::new(), printed: 0, matched: 0 };
    let mut unreadable = 0;
    let mut progress = Progress::new("Read", options.sort.is_none());
    progress.begin(None);
    let mut listing = store.list(which, 500, "");
    while !interrupt.is_pressed()
        && let Some(page) = persist(interrupt, async || listing.next_page().await).await?
    {
        progress.advance(page.len() as u64);
        unreadable += page.iter().filter(|session| session.data.is_err()).count() as u64;
        for session in &page {
            if let Some(shown) = choose(options, user.as_deref(), session, &settings) {
                list.add(shown)?;
            }
        }
        if options.sort.is_none() && list.matched > limit as u64 {
            break;
        }
    }
    progress.finish();
    list.finish(&settings)?;
    if user.is_some() && unreadable > 0 {
        eprintln!("{} could not be read and may be this user's too.", many(unreadable, "session"));
    }
    note_old(&settings);
    interrupt.end()
}

fn choose(options: &List, user: Option<&str>, session: &StoredSession, settings: &Settings) -> Option<Shown> {
    let mut shown = Shown::new(session, settings, Timestamp::now());
    let is_wanted = match user {
        Some(user) => shown.user.as_deref() == Some(user),
        None => !options.anonymous || shown.user.is_none(),
    };
    if options.show_keys {
        shown.key = Some(session.name.as_str().to_owned());
    }
    is_wanted.then_some(shown)
}

struct Lines<'a> {
    options: &'a List,
    limit: usize,
    /// To be sorted.
    kept: Vec<Shown>,
    printed: usize,
    matched: u64,
}

impl Lines<'_> {
    fn add(&mut self, shown: Shown) -> Result<(), Failure> {
        self.matched += 1;
        if self.options.sort.is_some() {
            self.kept.push(shown);
            if self.kept.len() >= self.limit.saturating_mul(2).max(10_000) {
                self.sort();
            }
            return Ok(());
        }
        if self.printed < self.limit { self.print(&shown) } else { Ok(()) }
    }

    fn sort(&mut self) {
        match self.options.sort {
            Some(Sort::Size) => self.kept.sort_by_key(|shown| std::cmp::Reverse(shown.size)),
            Some(Sort::Saved) => self.kept.sort_by_key(|shown| std::cmp::Reverse(shown.saved)),
            Some(Sort::Ends) => self.kept.sort_by_key(|shown| (shown.ends.is_none(), shown.ends)),
            None => {}
        }
        self.kept.truncate(self.limit);
    }

    fn print(&mut self, shown: &Shown) -> Result<(), Failure> {
        if self.options.json {
            self.printed += 1;
            return say_json(shown);
        }
        let (colours, now) = (Colours::on_stdout(), Timestamp::now());
        if self.printed == 0 {
            let head = format!(
                "{:16}  {:12}  {:>10}  {:>10}  {:>9}  VALUES",
                "SESSION", "USER", "SAVED", "ENDS", "SIZE"
            );
            say(colours.faint(head))?;
        }
        self.printed += 1;
        // What a user is called must not reach the terminal as it is.
        let user =
            shown.user.as_deref().map_or_else(|| "-".to_owned(), |user| user.escape_debug().to_string());
        let line = format!(
            "{}  {:12}  {:>10}  {:>10}  {:>9}  {:6}",
            shown.id,
            user,
            shown.saved.map_or_else(String::new, |saved| ago(saved, now)),
            report::ends(shown.ends, now),
            bytes(shown.size),
            shown.values,
        );
        let line = match &shown.error {
            Some(error) => colours.bad(format!("{line}  {error}")),
            None if shown.is_over => colours.faint(line),
            None => line,
        };
        match &shown.key {
            Some(key) => say(format!("{line}  {}", key.escape_debug())),
            None => say(line.trim_end()),
        }
    }

    fn finish(mut self, settings: &Settings) -> Result<(), Failure> {
        self.sort();
        for shown in std::mem::take(&mut self.kept) {
            self.print(&shown)?;
        }
        if self.matched > self.printed as u64 {
            eprintln!("There are more than these {}: --limit 0 shows all.", self.printed);
        } else if !self.options.json {
            eprintln!("{} in {}.", many(self.matched, "session"), describe(settings));
        }
        Ok(())
    }
}
