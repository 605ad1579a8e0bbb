//! The command line, put together from what each verb takes.

#![allow(clippy::doc_markdown, reason = "the comments are what `--help` prints, which knows no Markdown")]

use clap::{Parser, Subcommand};
use execlet::cli::{
    cluster::flags::ConnectionArgs,
    exit::Exit,
    verb::{
        approve::ApproveArgs, attach::AttachArgs, cancel::CancelArgs, completion::CompletionArgs,
        describe::DescribeArgs, get::GetArgs, logs::LogsArgs, replay::ReplayArgs, report::ReportArgs, rerun::RerunArgs,
        resume::ResumeArgs, run::RunArgs, version::VersionArgs, wait::WaitArgs,
    },
};

/// Run commands in containers as requests: at most once, on the record, and even if the connection breaks.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-execlet",
    bin_name = "kubectl execlet",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Args {
    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one of them is parsed, once")]
pub enum Verb {
    Run(RunArgs),
    Attach(AttachArgs),
    Logs(LogsArgs),
    Get(GetArgs),
    Describe(DescribeArgs),
    Wait(WaitArgs),
    Cancel(CancelArgs),
    Approve(ApproveArgs),
    Resume(ResumeArgs),
    Rerun(RerunArgs),
    Report(ReportArgs),
    Replay(ReplayArgs),
    Completion(CompletionArgs),
    Version(VersionArgs),
    /// Complete a command line, for kubectl_complete-execlet.
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

impl Verb {
    /// What it means if it ends in the middle: whether there is a command that may still run.
    pub const fn cut_short(&self) -> Exit {
        match self {
            Self::Run(_) | Self::Rerun(_) | Self::Attach(_) | Self::Logs(_) | Self::Wait(_) => Exit::LEFT,
            Self::Get(_)
            | Self::Describe(_)
            | Self::Cancel(_)
            | Self::Approve(_)
            | Self::Resume(_)
            | Self::Report(_)
            | Self::Replay(_)
            | Self::Completion(_)
            | Self::Version(_)
            | Self::Complete { .. } => Exit::FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};
    use execlet::cli::verb::completion::{Wanted, wanted};

    use super::*;

    fn at(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut definition = Args::command();
        definition.build();
        wanted(&definition, &words)
    }

    fn words(line: &str) -> Vec<String> {
        match at(line) {
            Wanted::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn kubectls_flags_go_before_and_after_the_verb() {
        for line in ["-n shop --context c get -o wide", "get -o wide -n shop --context c"] {
            let args = Args::try_parse_from(std::iter::once("x").chain(line.split(' '))).expect(line);
            assert_eq!(args.connection.namespace.as_deref(), Some("shop"));
            assert_eq!(args.connection.context.as_deref(), Some("c"));
        }
    }

    #[test]
    fn everything_after_the_dashes_is_the_commands() {
        let line = ["x", "run", "web", "--", "sh", "-c", "echo --help -n $0"];
        let args = Args::try_parse_from(line).expect("a line");
        let Verb::Run(run) = args.verb else { panic!("{:?}", args.verb) };
        assert_eq!((run.command.len(), args.connection.namespace), (3, None));
    }

    #[test]
    fn nonsense_is_refused_and_help_is_not() {
        let kind = |line: &[&str]| Args::try_parse_from(line).expect_err("no run").kind();
        assert_eq!(kind(&["x", "fly"]), ErrorKind::InvalidSubcommand);
        assert_eq!(kind(&["x", "run", "--help"]), ErrorKind::DisplayHelp);
    }

    #[test]
    fn verbs_and_flags_are_completed() {
        let verbs = words("");
        assert_eq!(
            verbs,
            [
                "run",
                "attach",
                "logs",
                "get",
                "describe",
                "wait",
                "cancel",
                "approve",
                "resume",
                "rerun",
                "report",
                "replay",
                "completion",
                "version"
            ]
        );
        let flags = words("run web --");
        for flag in ["--container", "--rm", "--detach-keys", "--namespace", "--as-group"] {
            assert!(flags.iter().any(|word| word == flag), "{flag} in {flags:?}");
        }
        assert!(!words("get --").iter().any(|word| word == "--rm"));
        assert_eq!(words("run web --dry-run "), ["client", "server"]);
        assert_eq!(words("get -o "), ["json", "yaml", "name", "wide"]);
        assert_eq!(words("run --pick "), ["all", "one-per-node", "one"]);
    }

    #[test]
    fn names_are_completed_where_names_belong() {
        for (line, expected) in [
            ("run ", Wanted::Pod),
            ("-n shop run ", Wanted::Pod),
            ("run -n ", Wanted::Namespace),
            ("run pod/web -c ", Wanted::Container(Some("web".into()))),
            ("run web -it -c ", Wanted::Container(Some("web".into()))),
            ("run web -- ", Wanted::Nothing),
            ("run web x", Wanted::Pod),
            ("logs -f ", Wanted::Object),
            ("logs --tail 3 ", Wanted::Object),
            ("logs one ", Wanted::Nothing),
            ("cancel one ", Wanted::Object),
            ("approve ", Wanted::Batch),
            ("rerun --failed ", Wanted::Batch),
            ("--context ", Wanted::Context),
            ("--user ", Wanted::User),
            ("replay ", Wanted::File),
            ("run web --record ", Wanted::File),
            ("run web --reason ", Wanted::Nothing),
        ] {
            assert_eq!(at(line), expected, "{line}");
        }
    }
}
