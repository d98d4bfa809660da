//! One video to label: what it takes, and what is told while it is done.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RESULTS;
use crate::engine::{Engine, Gallery};
use crate::identify::Who;
use crate::media::Input;
use crate::pipeline::page::PageJob;
use crate::pipeline::{Control, LabelJob, Pass, Progress};
use crate::report::{JsonLines, Output, Results};

/// A video and where its results go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    /// Its name on the page.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The folder of the results, which exists.
    pub results: PathBuf,
}

/// What a task tells, in this order: any number of the first three, then one of the last two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// A pass begins.
    Opened {
        /// Whether it is the one that writes.
        writes: bool,
        /// Frames expected, where known.
        frames: Option<u64>,
    },
    /// A frame is done.
    Frame,
    /// Something that is worth knowing.
    Warning(String),
    /// It is done.
    Done(Labelled),
    /// It failed, for that reason.
    Failed(String),
}

/// What became of a video.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Labelled {
    /// The people seen.
    pub people: Vec<String>,
    /// Why it ended early, if it did.
    pub cut_off: Option<String>,
}

impl Task {
    /// Labels the video. `told` gets its progress and warnings.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(
        &self,
        engine: &Engine,
        gallery: Option<&Gallery>,
        control: &Control,
        mut told: impl FnMut(Told) + Send,
    ) -> Result<Labelled, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let [page, video, faces] = RESULTS.map(|(name, _)| self.results.join(name));
        let create = |path: &Path| Output::create(path).map_err(|error| text(&error));
        let page = PageJob {
            output: create(&page)?,
            path: page,
            video: self.file.clone(),
            play: video.clone(),
            embed: false,
            analysis: None,
            facts: vec![("Video".into(), self.name.clone())],
        };
        let mut label = LabelJob::new(engine, Input::File(self.file.clone()))
            .results(Results::default().json_lines(Some(JsonLines::new(create(&faces)?))))
            .page(Some(page))
            .output(video);
        if let Some(gallery) = gallery {
            label = label.gallery(gallery);
        }
        let mut on_progress = |progress: Progress<'_>| {
            told(match progress {
                Progress::Opened { pass, frames, .. } => Told::Opened { writes: pass == Pass::Write, frames },
                Progress::Frame => Told::Frame,
                Progress::Warning(warning) => Told::Warning(warning.to_owned()),
            });
        };
        let summary = label.run(control, &mut on_progress).map_err(|error| text(&error))?;
        let name = |who: &Who| who.name().map(str::to_owned);
        let people = summary.people.iter().filter_map(|one| name(&one.who)).collect();
        Ok(Labelled { people, cut_off: summary.cut_off })
    }
}
