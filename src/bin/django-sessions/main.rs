//! `django-sessions`: looks into the sessions of a Django site and looks after them (feature `cli`).

mod doctor;
mod end;
mod inspect;
mod list;
mod migrate;
mod place;
mod prune;
mod report;
mod stats;
mod stored;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use self::report::{Failure, INTERRUPTED, Interrupt};

const AFTER_HELP: &str = "\
What the site's settings say about sessions is read from
  --settings FILE       or DJANGO_SESSIONS_FILE: what `manage.py export_session_settings --output FILE` wrote
  SECRET_KEY, SESSION_ENGINE, DATABASE_URL, CACHE_URL and so on, if there is no such file

Secrets are never taken from the command line, where other users could see them.

Exit codes:
  0    done
  1    it could not be done, or was refused; standard error says why, and what to do
  2    wrong usage: an unknown option, no settings, an input that cannot be read
  130  Ctrl-C: what was under way was finished, and what was done is said";

/// Looks into the sessions of a Django site, and looks after them.
#[derive(Parser)]
#[command(name = "django-sessions", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a session: its key, the cookie of signed_cookies, or the session_data of a row or a file on standard input
    #[command(after_help = inspect::AFTER_HELP)]
    Inspect(inspect::Inspect),
    /// Lists the sessions: whose they are, when they were saved, when they end, and how large they are
    List(list::List),
    /// Counts the sessions, and shows their sizes, when they end, and what takes the most room in them
    Stats(stats::Stats),
    /// Deletes sessions that are over, in batches, while the site runs
    Prune(prune::Prune),
    /// Copies or moves live sessions to another store, while the site runs
    Migrate(migrate::Migrate),
    /// Ends sessions: of a user, or one
    End(end::End),
    /// Tries the store that the settings name: opens it, writes, reads back, deletes, and measures
    Doctor(doctor::Doctor),
    /// Writes completions for a shell to standard output
    #[command(
        after_help = "bash:  django-sessions completions bash > /etc/bash_completion.d/django-sessions\n\
                            zsh:   django-sessions completions zsh > ~/.zfunc/_django-sessions\n\
                            fish:  django-sessions completions fish > ~/.config/fish/completions/django-sessions.fish"
    )]
    Completions {
        /// For which shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::Refused(format!("no runtime could be started: {error}"))),
    };
    let done = runtime.block_on(run(command));
    // Nothing that is still under way, as a look at the terminal, is waited for.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    let interrupt = Interrupt::watch();
    match command {
        Command::Inspect(options) => inspect::run(&options).await,
        Command::List(options) => list::run(&options, &interrupt).await,
        Command::Stats(options) => stats::run(&options, &interrupt).await,
        Command::Prune(options) => prune::run(&options, &interrupt).await,
        Command::Migrate(options) => migrate::run(&options, &interrupt).await,
        Command::End(options) => end::run(&options, &interrupt).await,
        Command::Doctor(options) => doctor::run(&options).await,
        Command::Completions { shell } => {
            // Not straight to standard output: it panics if nobody reads that any more.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "django-sessions", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
    }
}

fn failed(failure: &Failure) -> ExitCode {
    ExitCode::from(match failure {
        // Whoever reads us, as `head`, has seen enough.
        Failure::Unread => 0,
        Failure::Refused(why) => {
            eprintln!("error: {why}");
            1
        }
        Failure::Usage(why) => {
            eprintln!("error: {why}");
            2
        }
        Failure::Interrupted => INTERRUPTED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
