//! The command line: one file per subcommand, each raw arguments -> validated config ->
//! library call. Exit codes: 0 success, 1 failure, 2 usage error, 3 the input ended early and the
//! outputs are complete up to there. A closed pipe is not a failure: see `terminal`.

#[macro_use]
mod terminal;

#[cfg(feature = "train")]
mod align;
#[cfg(feature = "train")]
mod bench;
mod compare;
mod discover;
mod embed;
mod enroll;
#[cfg(feature = "train")]
mod eval;
mod faces;
mod gallery;
mod label;
#[cfg(feature = "library")]
mod library;
mod manual;
mod models;
mod options;
mod outputs;
mod results;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "train")]
mod train;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sphereface::gallery::GalleryError;

/// An invalid request, as opposed to one that failed: exit code 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Two stills show different people, which was already printed: exit code 1 without a message.
#[derive(Debug)]
struct Different;

impl fmt::Display for Different {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("different people")
    }
}

impl std::error::Error for Different {}

/// Face recognition in videos and stills: label everyone you enrolled, frame by frame, and leave everyone
/// else unknown.
#[derive(Debug, Parser)]
#[command(name = "sphereface", version, about, propagate_version = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Label(Box<label::LabelArgs>),
    Enroll(enroll::EnrollArgs),
    Compare(compare::CompareArgs),
    Embed(embed::EmbedArgs),
    Discover(discover::DiscoverArgs),
    #[cfg(feature = "library")]
    Library(library::LibraryArgs),
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    #[cfg(feature = "serve")]
    #[command(hide = true)]
    ServeJob(serve::JobArgs),
    Gallery(gallery::GalleryArgs),
    #[cfg(feature = "train")]
    Align(align::AlignArgs),
    #[cfg(feature = "train")]
    Eval(eval::EvalArgs),
    #[cfg(feature = "train")]
    Train(Box<train::TrainArgs>),
    Models(models::Models),
    #[cfg(feature = "train")]
    Bench(bench::BenchArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

impl Cli {
    fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Label(args) => args.run(),
            Command::Enroll(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Embed(args) => args.run(),
            Command::Discover(args) => args.run(),
            #[cfg(feature = "library")]
            Command::Library(args) => args.run(),
            #[cfg(feature = "serve")]
            Command::Serve(args) => args.run(),
            #[cfg(feature = "serve")]
            Command::ServeJob(args) => args.run(),
            Command::Gallery(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Align(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Eval(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Train(args) => args.run(),
            Command::Models(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Bench(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
        }
    }
}

/// An error with its causes, without repeated texts.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the request was invalid. A name that cannot be a person's is one of the command line: those of folders are
/// skipped, and those of a gallery are damages of it.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<UsageError>() || matches!(error.downcast_ref(), Some(GalleryError::Name { .. }))
}

/// Parses the command line, runs it, and reports a failure in one sentence on standard error.
pub fn main() -> ExitCode {
    match Cli::parse().run().and_then(|()| terminal::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Different>() => ExitCode::from(1),
        Err(error) => {
            errln!("sphereface: {}", sentence(&error));
            ExitCode::from(match () {
                () if is_usage(&error) => 2,
                () if error.is::<label::CutOff>() => 3,
                () => 1,
            })
        }
    }
}
