//! `kubectl execlet`: `ExecRequest`s, used like the verbs of kubectl.

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "what cannot be printed panics there: cli::say")]

mod args;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::CommandFactory as _;
use execlet::{
    cli::{
        error::Error,
        exit::Exit,
        say::last_words,
        verb::{
            approve, attach, cancel, completion, describe, get, logs, replay, report, rerun, resume, run, version, wait,
        },
    },
    infra::{
        arguments::{self, Done},
        print::say,
    },
};
use tokio::runtime::Runtime;

use self::args::{Args, Verb};

fn main() -> ExitCode {
    let args = match arguments::parse::<Args>(&words()) {
        Ok(args) => args,
        Err(Done::Told) => return code(Exit::SUCCESS),
        Err(Done::Failed) => return code(Exit::FAILED),
    };
    last_words::prepare(args.verb.cut_short());
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say("execlet", &format!("cannot start the runtime: {error}"));
            return code(Exit::FAILED);
        }
    };
    let result = runtime.block_on(Box::pin(dispatch(args)));
    // A read of standard input cannot be cancelled: its thread ends with the program.
    runtime.shutdown_background();
    match result {
        Ok(exit) => code(exit),
        Err(error) => {
            say("execlet", &error.to_string());
            code(error.exit())
        }
    }
}

/// The command line; under the name that kubectl runs for completion, that of `__complete`.
fn words() -> Vec<OsString> {
    let mut words: Vec<_> = std::env::args_os().collect();
    let name = words.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    if name == completion::EXECUTABLE {
        words.splice(..1, ["kubectl-execlet", "__complete", "--"].map(Into::into));
    } else if words.get(1).is_some_and(|word| word == "__complete") && words.get(2).is_none_or(|word| word != "--") {
        words.insert(2, "--".into());
    }
    words
}

async fn dispatch(args: Args) -> Result<Exit, Error> {
    let connection = args.connection;
    match args.verb {
        Verb::Replay(args) => replay::run(args).await,
        Verb::Completion(_) => completion::script(),
        Verb::Complete { words } => {
            let mut definition = Args::command();
            definition.build();
            // The connection flags are among the words.
            let typed = ["kubectl-execlet".to_owned()].into_iter().chain(words.iter().cloned());
            let typed = Args::command().ignore_errors(true).try_get_matches_from(typed);
            let connection = typed
                .ok()
                .and_then(|matches| clap::FromArgMatches::from_arg_matches(&matches).ok())
                .unwrap_or(connection);
            completion::complete(&definition, &connection, &words).await
        }
        Verb::Version(args) => version::run(args, connection.connect()).await,
        Verb::Run(args) => run::run(&connection.connect().await?, args).await,
        Verb::Attach(args) => attach::run(&connection.connect().await?, args).await,
        Verb::Logs(args) => logs::run(&connection.connect().await?, args).await,
        Verb::Get(args) => get::run(&connection.connect().await?, args).await,
        Verb::Describe(args) => describe::run(&connection.connect().await?, args).await,
        Verb::Wait(args) => wait::run(&connection.connect().await?, args).await,
        Verb::Approve(args) => approve::run(&connection.connect().await?, args).await,
        Verb::Resume(args) => resume::run(&connection.connect().await?, args).await,
        Verb::Rerun(args) => rerun::run(&connection.connect().await?, args).await,
        Verb::Cancel(args) => cancel::run(&connection.connect().await?, args).await,
        Verb::Report(args) => report::run(&connection.connect().await?, args).await,
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.0)
}
