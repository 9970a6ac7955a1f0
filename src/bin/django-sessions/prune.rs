//! `prune`.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use clap::Args;
use django_sessions::backends::manage::PruneOptions;
use django_sessions::settings::Engine;
use serde::Serialize;

use crate::place::{Place, describe};
use crate::report::{
    Failure, Interrupt, Progress, length, many, parse_age, parse_pause, say, say_json, sentence,
};

#[derive(Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    place: Place,
    /// How many sessions a batch deletes at most; fewer, where they take over 20 ms
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// How long to leave the store to others after each batch: 0.05, or 50ms
    #[arg(long, value_name = "TIME", value_parser = parse_pause, default_value = "5ms")]
    sleep: Duration,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only those that ended so long ago: 30d, 12h, 15m
    #[arg(long, value_name = "TIME", value_parser = parse_age, default_value = "0s")]
    older_than: Duration,
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

#[derive(Serialize)]
struct Pruned {
    deleted: u64,
    would_be_deleted: Option<u64>,
    seconds: f64,
    interrupted: bool,
}

pub(crate) async fn run(options: &Prune, interrupt: &Interrupt) -> Result<(), Failure> {
    let settings = options.place.read()?;
    if matches!(settings.session_engine, Engine::Cache | Engine::SignedCookies) {
        let pruned = Pruned { deleted: 0, would_be_deleted: Some(0), seconds: 0.0, interrupted: false };
        return match options.json {
            true => say_json(&pruned),
            false => say(format!(
                "Nothing to do: {} forget by themselves what is over.",
                plural(&describe(&settings))
            )),
        };
    }
    let store = crate::place::open(&settings).await?;
    let limited = |number: u64| number.min(options.limit.unwrap_or(u64::MAX));
    let age = if options.older_than.is_zero() {
        String::new()
    } else {
        format!(" {} ago or more", length(options.older_than.try_into().unwrap_or_default()))
    };
    if options.dry_run {
        let number = limited(store.count_expired(options.older_than).await?);
        let pruned = Pruned { deleted: 0, would_be_deleted: Some(number), seconds: 0.0, interrupted: false };
        return match options.json {
            true => say_json(&pruned),
            false => say(format!(
                "{} that ended{age} would be deleted from {}.",
                many(number, "session"),
                describe(&settings)
            )),
        };
    }
    let mut chosen = PruneOptions::default();
    (chosen.batch_size, chosen.pause) = (options.batch, options.sleep);
    (chosen.limit, chosen.older_than) = (options.limit, options.older_than);
    let mut progress = Progress::new("Deleted", options.no_progress);
    let total = match progress.wants_total() {
        true => Some(limited(store.count_expired(options.older_than).await?)),
        false => None,
    };
    progress.begin(total);
    let (start, mut deleted) = (Instant::now(), 0);
    let mut report = |batch: django_sessions::backends::manage::PruneProgress| {
        progress.advance(batch.deleted - deleted);
        deleted = batch.deleted;
        if interrupt.is_pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let done = store.prune(chosen, &mut report).await;
    progress.finish();
    if let Err(error) = done {
        return Err(Failure::Refused(format!(
            "{}. {} deleted until then; run it again for the rest",
            sentence(&error),
            many(deleted, "session")
        )));
    }
    let took = start.elapsed().as_secs_f64();
    let interrupted = interrupt.is_pressed();
    if options.json {
        say_json(&Pruned { deleted, would_be_deleted: None, seconds: took, interrupted })?;
    } else {
        let left = if interrupted { " Interrupted: run it again for the rest." } else { "" };
        say(format!(
            "{} that ended{age} deleted from {} in {took:.1} s.{left}",
            many(deleted, "session"),
            describe(&settings)
        ))?;
    }
    interrupt.end()
}

fn plural(place: &str) -> String {
    match place.strip_prefix("the cache ") {
        Some(alias) => format!("caches, as {alias},"),
        None => place.to_owned(),
    }
}
