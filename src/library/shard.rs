//! Analysing a part of a list of files without a database: for Slurm, Kubernetes jobs, GNU parallel and
//! similar schedulers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use super::analyses::Analyses;
use super::catalogue::Kind;
use super::look::{Failure, Look, LookOptions};
use super::{LibraryError, analysis_name, scan};
use crate::engine::Engine;
use crate::media::Input;
use crate::pipeline::Control;

/// One of several equal parts of a list: every `of`th file, beginning with number `number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// The number of the part, from 1.
    pub number: usize,
    /// The number of parts.
    pub of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!(
                "`{text}` is not a part of a list: write for example 3/16, for the third of sixteen"
            )),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl Shard {
    /// The whole list.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Analyses the files of this part of `paths` in order, and writes each analysis into the folder `to`,
    /// under the digest of the file's content. A [`Library`](super::Library) uses such analyses if they are
    /// in its own folder. Files that already have an analysis are skipped. `each` is called after every file.
    ///
    /// # Errors
    /// When `to` cannot be created. A file that cannot be read is not an error.
    pub fn analyse(
        self,
        engine: &Engine,
        options: LookOptions,
        paths: &[PathBuf],
        to: &Path,
        control: &Control,
        each: &mut dyn FnMut(&ShardItem),
    ) -> Result<(), LibraryError> {
        let analyses = Analyses::in_folder(to.to_owned())?;
        let worker = std::process::id().to_string();
        for path in paths.iter().skip(self.number - 1).step_by(self.of) {
            if control.is_stopping() {
                break;
            }
            let started = Instant::now();
            let content = scan::content(path);
            let kind = match Input::of_path(path) {
                Input::Still(_) => Kind::Photo,
                _ => Kind::Video,
            };
            let (content, analysis, outcome) = match content {
                Err(error) => (None, None, ShardOutcome::Failed(format!("it cannot be read: {error}"))),
                Ok(content) => {
                    let name = analysis_name(&content);
                    let (detect_every, selection) = (options.detect_every, options.selection());
                    let (analyses, name, worker) = (&analyses, name.as_str(), worker.as_str());
                    let look = Look { engine, detect_every, path, kind, selection, analyses, name, worker };
                    let outcome = match look.there() {
                        Some(_) => ShardOutcome::Skipped,
                        None => match look.run(control, &mut |_, _| {}) {
                            Ok((analysis, remark)) => ShardOutcome::Done {
                                frames: analysis.video.frames,
                                tracks: analysis.tracks().len(),
                                remark: Some(remark).filter(|text| !text.is_empty()),
                            },
                            Err(Failure::File(error) | Failure::Away(error) | Failure::Other(error)) => {
                                ShardOutcome::Failed(error)
                            }
                            Err(Failure::Stopped) => break,
                        },
                    };
                    let last = analyses.path(name);
                    (Some(content), Some(last), outcome)
                }
            };
            let seconds = started.elapsed().as_secs_f64();
            each(&ShardItem { path: path.clone(), content, analysis, seconds, outcome });
        }
        Ok(())
    }
}

/// A file of a part of a list.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ShardItem {
    /// Its path.
    pub path: PathBuf,
    /// The digest of its content, if it could be read.
    pub content: Option<String>,
    /// The path of its analysis.
    pub analysis: Option<PathBuf>,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// The outcome.
    pub outcome: ShardOutcome,
}

/// The outcome for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardOutcome {
    /// It was analysed.
    Done {
        /// Frames seen.
        frames: u64,
        /// Tracks of faces.
        tracks: usize,
        /// Why it ends early, if it does.
        remark: Option<String>,
    },
    /// Its analysis existed already.
    Skipped,
    /// It cannot be analysed.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_number_of_a_number() {
        assert_eq!("3/16".parse(), Ok(Shard { number: 3, of: 16 }));
        assert_eq!(Shard { number: 1, of: 1 }.to_string().parse(), Ok(Shard::WHOLE));
        for wrong in ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
