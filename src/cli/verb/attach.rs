//! `attach`: everything that a request has written and writes, and its input.

use crate::cli::{
    cluster::connection::Cluster,
    cluster::{
        discovery::{self, Streams},
        requests::Requests,
    },
    error::Error,
    exit::Exit,
    follow::{
        conclude::{OnInterrupt, conclude},
        options::FollowArgs,
        watched::Watched,
    },
    say::{speech::Speech, terminal},
};

/// Follow a request from its first byte to its end, and end as its command does.
#[derive(Clone, Debug, clap::Args)]
pub struct AttachArgs {
    /// Name of the request.
    #[arg(value_name = "NAME", value_parser = super::get::request_name)]
    pub name: String,

    /// Give the command our standard input; it must have been created to take it.
    #[arg(long, short = 'i')]
    pub stdin: bool,

    /// For habit's sake: a command that has a terminal gets ours.
    #[arg(long, short = 't')]
    pub tty: bool,

    #[command(flatten)]
    follow: FollowArgs,
}

/// Attaches.
///
/// # Errors
/// When it cannot be attached to.
pub async fn run(cluster: &Cluster, args: AttachArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.follow.quiet);
    let requests = Requests::new(cluster);
    if let Streams::Missing(why) = discovery::streams(cluster).await? {
        let wait = cluster.plugin(&format!("wait {}", args.name));
        return Err(Error::NoStreams(format!("{why}. For its outcome: {wait}")));
    }
    let request = requests.get(&args.name).await?;
    let takes_input = request.spec.stdin.as_ref().is_some_and(|stdin| stdin.attach.is_some());
    if args.stdin && !takes_input {
        return Err(Error::Usage(format!(
            "{} takes no standard input from a client: it was created without stdin.attach (run -i)",
            args.name
        )));
    }
    if args.tty && !request.spec.tty {
        speech.say("the command has no terminal: -t is without effect");
    }
    // A command's terminal needs one here to be typed at.
    let tty = request.spec.tty && (!args.stdin || terminal::input_is_terminal());
    if request.spec.tty && !tty {
        return Err(Error::Usage("the command has a terminal, and standard input is none: leave out -i".to_owned()));
    }
    let recording = args.follow.recording()?;
    let options = args.follow.options(&request, args.stdin, tty, recording)?;
    let watched = Watched::new(&requests, request);
    conclude(cluster, &Streams::Served, watched, &speech, options, OnInterrupt::Leave).await
}
