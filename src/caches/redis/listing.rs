//! `SCAN`: the keys that a server has, or a Cluster; and what is under them.
//!
//! A cursor of `SCAN` means something to the process that gave it. To another one, be it the same server after a restart
//! or the replica that took over, it may pass over keys. So our cursor names the process, and where that is another, its
//! keys are listed from the beginning.
//!
//! In a Cluster we list the primaries one after the other, and note of which slots we have seen all keys: of those that
//! the server had from the first page of its keys to the last. A slot that moves meanwhile is looked for where it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::{ErrorKind, Pipeline, RedisError, Value};
use tokio::task::JoinSet;

use super::cluster::{Cluster, Slots};
use super::{CacheError, Entry, parsed};

/// Some keys, and from where to go on.
pub(super) type Page = (Vec<String>, Option<String>);

/// How often to look for the server that has a slot, or to begin anew with one, before the answer is an error.
const TRIES: u32 = 4;

const SLOTS: usize = 16384;

/// What to list.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) head: &'a str,
    pub(super) count: usize,
}

impl Wanted<'_> {
    /// The questions whose answers are a [`Scanned`].
    fn ask(self, commands: &mut Pipeline, cursor: &str) {
        commands.cmd("INFO").arg("server");
        let scan = commands.cmd("SCAN").arg(cursor);
        scan.arg("MATCH").arg(pattern(self.head)).arg("COUNT").arg(self.count);
    }
}

/// A pattern of Redis for what begins with `head`.
fn pattern(head: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    let escaped = head.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c]));
    escaped.chain(['*']).collect()
}

/// What a process answered.
struct Scanned {
    keys: Vec<String>,
    next: Cursor,
}

impl Scanned {
    fn read(info: Value, scanned: Value) -> Result<Self, CacheError> {
        let info: String = parsed(info)?;
        let process = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
        let (cursor, keys): (String, Vec<Vec<u8>>) = parsed(scanned)?;
        // A key that is no text is none of Django's.
        let keys = keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect();
        Ok(Self { keys, next: Cursor { process: process.to_owned(), cursor } })
    }
}

/// A cursor of `SCAN`, and the process to which it means something.
#[derive(Clone, Debug, PartialEq)]
struct Cursor {
    process: String,
    cursor: String,
}

impl Cursor {
    /// `None`, which is the beginning, also of what we did not write.
    fn read(text: &str) -> Option<Self> {
        let (process, cursor) = text.split_once(':')?;
        cursor.parse::<u64>().ok()?;
        Some(Self { process: process.to_owned(), cursor: cursor.to_owned() })
    }

    /// What to ask for: the beginning, where there is none.
    fn of(cursor: Option<&Self>) -> &str {
        cursor.map_or("0", |cursor| &cursor.cursor)
    }

    fn is_end(&self) -> bool {
        self.cursor == "0"
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.process, self.cursor)
    }
}

/// Of one server, to which this sends commands.
pub(super) async fn of_server<F>(
    send: impl Fn(Pipeline) -> F,
    wanted: Wanted<'_>,
    from: &str,
) -> Result<Page, CacheError>
where
    F: Future<Output = Result<Vec<Value>, CacheError>>,
{
    let mut from = Cursor::read(from);
    loop {
        let mut questions = Pipeline::new();
        wanted.ask(&mut questions, Cursor::of(from.as_ref()));
        let [info, scanned] = answers(send(questions).await?)?;
        let Scanned { keys, next } = Scanned::read(info, scanned)?;
        if from.as_ref().is_none_or(|from| from.process == next.process) {
            return Ok((keys, (!next.is_end()).then(|| next.to_string())));
        }
        from = None;
    }
}

/// Of a Cluster.
pub(super) async fn of_cluster(
    cluster: &Arc<Cluster>,
    wanted: Wanted<'_>,
    from: &str,
) -> Result<Page, CacheError> {
    let mut place = Progress::read(from);
    let Some(slot) = place.listed.first_missing() else { return Ok((Vec::new(), None)) };
    let mut server = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
    for _ in 0..TRIES {
        let mut questions = Pipeline::new();
        questions.cmd("CLUSTER").arg("MYID").add_command(Slots::question());
        wanted.ask(&mut questions, Cursor::of(place.scan.as_ref().map(|scan| &scan.next)));
        let [id, owners, info, scanned] = answers(cluster.ask(questions, server.clone()).await?)?;
        let (id, owners): (String, _) = (parsed(id)?, Slots::read(owners)?);
        let Some(owner) = owners.iter().find(|range| (range.first..=range.last).contains(&slot)) else {
            return Err(unsettled("no server of the Redis Cluster has all of its slots"));
        };
        // The redis crate is told by errors alone who has a slot now, and a `SCAN` gets none.
        if owner.id != id {
            if let Some(host) = owner.host.clone() {
                server = SingleNodeRoutingInfo::ByAddress { host, port: owner.port };
            }
            continue;
        }
        let Scanned { keys, next } = Scanned::read(info, scanned)?;
        if place.scan.as_ref().is_none_or(|scan| scan.next.process == next.process) {
            let own = owners.iter().filter(|range| range.id == id).map(|range| (range.first, range.last));
            return Ok((keys, place.after(SlotSet::of(own), next)));
        }
        place.scan = None;
    }
    Err(unsettled("the Redis Cluster does not agree who has a slot: a failover or a reshard is under way"))
}

fn unsettled(why: &'static str) -> CacheError {
    RedisError::from((ErrorKind::ClusterConnectionNotFound, why)).into()
}

fn answers<const N: usize>(answers: Vec<Value>) -> Result<[Value; N], CacheError> {
    let wrong = |_| RedisError::from((ErrorKind::Parse, "Redis gave another number of answers"));
    Ok(answers.try_into().map_err(wrong)?)
}

/// How far the listing of a Cluster is.
#[derive(Debug, Default, PartialEq)]
struct Progress {
    /// Of these slots all keys were listed.
    listed: SlotSet,
    scan: Option<Scan>,
}

/// A server whose keys are being listed.
#[derive(Debug, PartialEq)]
struct Scan {
    /// The slots that it has had all the time.
    slots: SlotSet,
    next: Cursor,
}

impl Progress {
    /// After a page of a server that has these slots. `None` is the end.
    fn after(mut self, own: SlotSet, next: Cursor) -> Option<String> {
        let slots = match self.scan {
            Some(scan) => scan.slots.and(&own),
            None => own,
        };
        if !next.is_end() {
            self.scan = Some(Scan { slots, next });
            return Some(self.to_string());
        }
        self.listed = self.listed.or(&slots);
        self.scan = None;
        self.listed.first_missing().map(|_| self.to_string())
    }

    /// The beginning, also of what we did not write.
    fn read(text: &str) -> Self {
        let mut parts = text.split(';');
        let listed = parts.next().and_then(SlotSet::read).unwrap_or_default();
        let scan = match (parts.next().and_then(SlotSet::read), parts.next().and_then(Cursor::read)) {
            (Some(slots), Some(next)) => Some(Scan { slots, next }),
            _ => None,
        };
        Self { listed, scan }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.listed)?;
        match &self.scan {
            Some(scan) => write!(f, ";{};{}", scan.slots, scan.next),
            None => Ok(()),
        }
    }
}

/// Some of a Cluster's slots; as text `0-5460,10923-16383`.
#[derive(Debug, PartialEq)]
struct SlotSet(Vec<bool>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(vec![false; SLOTS])
    }
}

impl SlotSet {
    fn of(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut set = Self::default();
        for (first, last) in ranges {
            if let Some(range) = set.0.get_mut(usize::from(first)..=usize::from(last)) {
                range.fill(true);
            }
        }
        set
    }

    fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| *one && *other).collect())
    }

    fn or(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| *one || *other).collect())
    }

    fn first_missing(&self) -> Option<u16> {
        self.0.iter().position(|is_in| !is_in).and_then(|slot| u16::try_from(slot).ok())
    }

    fn read(text: &str) -> Option<Self> {
        let ranges = text.split(',').filter(|range| !range.is_empty()).map(|range| {
            let (first, last) = range.split_once('-')?;
            let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && usize::from(last) < SLOTS).then_some((first, last))
        });
        Some(Self::of(ranges.collect::<Option<Vec<_>>>()?))
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut first, mut separator) = (0, "");
        for range in self.0.chunk_by(|one, next| one == next) {
            if range[0] {
                write!(f, "{separator}{first}-{}", first + range.len() - 1)?;
                separator = ",";
            }
            first += range.len();
        }
        Ok(())
    }
}

/// Asks for a value and its life. The answers are read by [`entry`].
pub(super) fn ask_for(commands: &mut Pipeline, key: &str) {
    commands.cmd("GET").arg(key).cmd("PTTL").arg(key);
}

pub(super) fn entry(value: Value, life: Value) -> Result<Option<Entry>, CacheError> {
    let value: Option<Vec<u8>> = parsed(value)?;
    let life: i64 = parsed(life)?;
    let life = match u64::try_from(life) {
        Ok(life) => Some(Duration::from_millis(life)),
        // -1 is for ever, and -2 says that it has just ended.
        Err(_) if life == -1 => None,
        Err(_) => Some(Duration::ZERO),
    };
    Ok(value.filter(|_| life != Some(Duration::ZERO)).map(|value| Entry { value, life }))
}

/// What is under keys of a Cluster, which is asked for all at once: each may be on another server.
pub(super) async fn entries_of_cluster(
    cluster: &Arc<Cluster>,
    keys: &[String],
) -> Result<Vec<Option<Entry>>, CacheError> {
    let mut questions = JoinSet::new();
    for (number, key) in keys.iter().enumerate() {
        let (cluster, mut commands) = (cluster.clone(), Pipeline::new());
        ask_for(&mut commands, key);
        questions.spawn(async move {
            let [value, life] = answers(cluster.query_all(&commands).await?)?;
            Ok::<_, CacheError>((number, entry(value, life)?))
        });
    }
    let mut entries: Vec<_> = keys.iter().map(|_| None).collect();
    while let Some(answer) = questions.join_next().await {
        let ended = |_| RedisError::from((ErrorKind::Io, "the runtime ended that was asking"));
        let (number, entry) = answer.map_err(ended)??;
        entries[number] = entry;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_means_only_itself() {
        assert_eq!(pattern("a:1:b"), "a:1:b*");
        assert_eq!(pattern(r"a[1]*?\"), r"a\[1\]\*\?\\*");
    }

    fn next(process: &str, cursor: &str) -> Cursor {
        Cursor { process: process.to_owned(), cursor: cursor.to_owned() }
    }

    #[test]
    fn slots_as_text() {
        for text in ["", "0-0", "0-16383", "0-5460,10923-16383", "1-1,3-3,16383-16383"] {
            assert_eq!(SlotSet::read(text).unwrap().to_string(), text);
        }
        for text in ["0", "5-4", "0-16384", "0-99999", "-1-2", "a-b", "0-1;2-3"] {
            assert_eq!(SlotSet::read(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_the_beginning() {
        for text in ["", "1234", "process:x", "process"] {
            assert_eq!(Cursor::read(text), None, "{text}");
        }
        for text in ["", "1234", "0-5460x", "abc:17"] {
            assert_eq!(Progress::read(text), Progress::default(), "{text}");
        }
        let listed = SlotSet::of([(0, 5460)]);
        for text in ["0-5460", "0-5460;", "0-5460;5461-10922", "0-5460;5461-10922;abc", "0-5460;5-4;abc:17"] {
            assert_eq!(Progress::read(text).listed, listed, "{text}");
            assert_eq!(Progress::read(text).scan, None, "{text}");
        }
    }

    /// Each server of three is listed in two pages.
    #[test]
    fn a_cluster_is_listed_when_each_slot_is() {
        let thirds = [(0, 5460), (5461, 10922), (10923, 16383)];
        let mut text = String::new();
        for (number, third) in thirds.into_iter().enumerate() {
            let place = Progress::read(&text);
            assert_eq!(place.listed.first_missing(), Some(third.0));
            text = place.after(SlotSet::of([third]), next("p", "17")).unwrap();
            let place = Progress::read(&text);
            assert_eq!(place.scan.as_ref().unwrap().next, next("p", "17"));
            assert_eq!(place.to_string(), text);
            match place.after(SlotSet::of([third]), next("p", "0")) {
                Some(after) => text = after,
                None => assert_eq!(number, 2),
            }
        }
    }

    /// What a server was given, or gave away, between its first page and its last is looked for where it is then.
    #[test]
    fn a_slot_that_moves_is_not_listed_yet() {
        let text = Progress::default().after(SlotSet::of([(0, 9999)]), next("p", "17")).unwrap();
        let text =
            Progress::read(&text).after(SlotSet::of([(0, 99), (200, 12000)]), next("p", "18")).unwrap();
        let text = Progress::read(&text).after(SlotSet::of([(0, 12000)]), next("p", "0")).unwrap();
        assert_eq!(text, "0-99,200-9999");
        assert_eq!(Progress::read(&text).listed.first_missing(), Some(100));
    }
}
