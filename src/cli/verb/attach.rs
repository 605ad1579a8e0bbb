//! `attach`: everything that a request has written and writes, and its input; or the view of a batch.

use std::io::{self, IsTerminal as _};

use crate::cli::{
    batch::{arguments::ShownArgs, follow::follow},
    cluster::{connection::Cluster, discovery::missing_streams},
    error::Error,
    exit::{Exit, HELP},
    follow::{
        conclude::{OnInterrupt, conclude},
        options::FollowArgs,
        watched::Watched,
    },
    request::takes_input,
    say::speech::Speech,
    typed::{Name, object_name},
};

/// Show all output of a request, follow it to its end, and exit as its command does; or follow a batch.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct AttachArgs {
    /// Name of the request, or xb/NAME of a batch.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub name: Name,

    /// Pass standard input to the command; only for a request that was created with -i.
    #[arg(long, short = 'i')]
    pub stdin: bool,

    /// No effect: a command that has a terminal always gets ours.
    #[arg(long, short = 't')]
    pub tty: bool,

    #[command(flatten)]
    follow: FollowArgs,

    #[command(flatten)]
    shown: ShownArgs,
}

pub async fn run(cluster: &Cluster, args: AttachArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.follow.quiet);
    match args.name.clone() {
        Name::Request(name) => attach_to(cluster, name, args, &speech).await,
        Name::Batch(name) if args.stdin || args.tty || args.follow.record.is_some() => Err(Error::Message(format!(
            "xb/{name} is a batch of many commands: -i, -t and --record are for one of them, by the name of its request"
        ))),
        Name::Batch(name) => follow(cluster, cluster.batch(&name).await?, &speech, args.shown.group).await,
    }
}

async fn attach_to(cluster: &Cluster, name: String, args: AttachArgs, speech: &Speech) -> Result<Exit, Error> {
    let stdin = args.stdin;
    if args.shown.group {
        return Err(Error::Message(format!("--group is for batches, and {name} is a request: leave it out")));
    }
    if let Some(why) = missing_streams(cluster).await? {
        let wait = cluster.plugin(&format!("wait {name}"));
        return Err(Error::Message(format!("{why}. For its outcome: {wait}")));
    }
    let request = cluster.get(&name).await?;
    if stdin && !takes_input(&request) {
        return Err(Error::Message(format!(
            "{name} takes no input from clients: it was created without -i (spec.stdin.attach). Leave out -i"
        )));
    }
    if args.tty && !request.spec.tty {
        speech.say("the command has no terminal: -t has no effect");
    }
    // Typing at a command's terminal takes one here.
    let tty = request.spec.tty && (!stdin || io::stdin().is_terminal());
    if request.spec.tty && !tty {
        return Err(Error::Message(
            "the command has a terminal, but standard input is not one: leave out -i".to_owned(),
        ));
    }
    let recording = args.follow.recording()?;
    let options = args.follow.options(&request, stdin, tty, recording)?;
    let watched = Watched::new(cluster, request, speech);
    conclude(cluster, None, watched, options, OnInterrupt::Leave).await
}
