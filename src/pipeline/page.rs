//! The page about a video, with pictures of the people.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::LabelError;
use super::redact::Covered;
use crate::analysis::Analysis;
use crate::annotate::Colours;
use crate::discover;
use crate::identify::{Decision, Who};
use crate::report::{Appearance, Output, Page, PagePerson, PageVideo};
use crate::track::Observation;

/// A page to write.
pub struct PageJob {
    /// Its output, created when the run begins.
    pub output: Output,
    /// Its path, relative to which the video is linked.
    pub path: PathBuf,
    /// The video, for thumbnails.
    pub video: PathBuf,
    /// The video to play.
    pub play: PathBuf,
    /// Whether that is embedded in the page.
    pub embed: bool,
    /// The analysis, from which strangers can be enrolled.
    pub analysis: Option<PathBuf>,
    /// Additional facts: heading and text.
    pub facts: Vec<(String, String)>,
}

impl PageJob {
    /// Fetches a picture of everyone from the video and writes the page; people are `covered` as in the
    /// video.
    #[cfg_attr(not(feature = "video"), expect(dead_code, reason = "needs the frames"))]
    pub(super) fn write(
        self,
        analysis: &Analysis,
        decisions: &[Decision],
        people: &[Appearance],
        covered: Option<&Covered>,
        colours: &Colours,
    ) -> Result<(), LabelError> {
        // The best view of everyone, and their tracks.
        let mut best: BTreeMap<&Who, &Observation> = BTreeMap::new();
        let mut tracks: BTreeMap<&Who, Vec<String>> = BTreeMap::new();
        for decision in decisions {
            tracks.entry(&decision.who).or_default().push(decision.track.to_string());
            let shown = |one: &&Observation| one.track == decision.track && one.frame == decision.best_frame;
            if let Some(view) = analysis.observations.iter().find(shown)
                && best.get(&decision.who).is_none_or(|held| view.weight() > held.weight())
            {
                best.insert(&decision.who, view);
            }
        }
        let times_ns: BTreeSet<u64> = best.values().map(|view| view.pts_ns).collect();
        let mut portraits = BTreeMap::new();
        discover::pictures(&self.video, &times_ns, |pts_ns, mut picture| {
            let shown = || best.iter().filter(|(_, view)| view.pts_ns == pts_ns);
            // People who are covered in the video are covered here.
            if let Some((redactor, boxes)) = covered {
                let frame = shown().next().and_then(|(_, view)| usize::try_from(view.frame).ok());
                let boxes = frame.and_then(|frame| boxes.get(frame));
                boxes.into_iter().for_each(|boxes| drop(redactor.draw_rgb(&mut picture, boxes)));
            }
            for (who, view) in shown() {
                portraits.extend(discover::portrait(&picture, view).map(|portrait| (*who, portrait)));
            }
        })?;
        let enroll = |who: &Who| {
            let analysis = self.analysis.as_deref().filter(|_| who.name().is_none()).map(Path::display)?;
            let tracks = tracks.get(who)?.join(",");
            Some(format!("sphereface enroll NAME --from \"{analysis}#{tracks}\""))
        };
        let people = people.iter().map(|appearance| PagePerson {
            appearance: appearance.clone(),
            thumbnail: portraits.remove(&appearance.who),
            best_ns: best.get(&appearance.who).map(|view| view.pts_ns),
            enroll: enroll(&appearance.who),
        });
        let page = Page {
            title: analysis.video.name.clone(),
            people: people.collect(),
            colours: colours.clone(),
            duration_ns: analysis.video.duration_ns,
            video: if self.embed { PageVideo::Embedded(self.play) } else { PageVideo::Beside(self.play) },
            facts: self.facts,
        };
        Ok(page.write(self.output, &self.path)?)
    }
}
