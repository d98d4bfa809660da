//! The command line: one file per subcommand, each raw arguments -> validated config ->
//! library call. Exit codes: 0 done, 1 failed, 2 asked for something that makes no sense, 3 done up
//! to where the input could not be followed further.

mod align;
mod bench;
mod discover;
mod enroll;
mod eval;
mod faces;
mod gallery;
mod label;
mod models;
mod options;
mod results;
mod train;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A request that makes no sense, as opposed to one that failed: exit code 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Names everyone you enrolled, frame by frame, and leaves strangers as strangers.
#[derive(Debug, Parser)]
#[command(name = "sphereface", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Label(Box<label::LabelArgs>),
    Enroll(enroll::EnrollArgs),
    Discover(discover::DiscoverArgs),
    Gallery(gallery::GalleryArgs),
    Align(align::AlignArgs),
    Eval(eval::EvalArgs),
    Train(Box<train::TrainArgs>),
    Models(models::Models),
    Bench(bench::BenchArgs),
}

impl Cli {
    fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Label(args) => args.run(),
            Command::Enroll(args) => args.run(),
            Command::Discover(args) => args.run(),
            Command::Gallery(args) => args.run(),
            Command::Align(args) => args.run(),
            Command::Eval(args) => args.run(),
            Command::Train(args) => args.run(),
            Command::Models(command) => command.run(),
            Command::Bench(args) => args.run(),
        }
    }
}

/// An error with its causes, as far as they are not told already.
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

/// Parses the command line, runs it, and reports a failure in one sentence on standard error.
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sphereface: {}", sentence(&error));
            ExitCode::from(match () {
                () if error.is::<UsageError>() => 2,
                () if error.is::<label::CutOff>() => 3,
                () => 1,
            })
        }
    }
}
