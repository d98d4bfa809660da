//! The page about a video, with pictures of the people.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::LabelError;
use super::subscriber::{Ending, Subscriber};
use crate::annotate::{Colours, Redactor};
use crate::detect::{BBox, Face};
use crate::discover;
use crate::engine::LabelledFrame;
use crate::identify::Who;
use crate::report::timeline::VideoFacts;
use crate::report::{Output, Page, PagePerson, PageVideo};
use crate::track::{TrackId, weight_inside};

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

/// Writes a page when the job is done: it remembers the best view of everyone and their tracks.
pub(super) struct PageWriter {
    job: PageJob,
    colours: Colours,
    redactor: Option<Redactor>,
    title: String,
    people: BTreeMap<Who, Seen>,
}

/// What the page shows of a person.
struct Seen {
    weight: f32,
    pts_ns: u64,
    face: Face,
    /// The boxes covered in that frame.
    covered: Vec<BBox>,
    tracks: BTreeSet<TrackId>,
}

impl PageWriter {
    /// A page with the colours of the video, in which people are covered as there.
    #[cfg_attr(not(feature = "video"), expect(dead_code, reason = "needs the frames"))]
    pub fn new(job: PageJob, colours: Colours, redactor: Option<Redactor>) -> Self {
        Self { job, colours, redactor, title: String::new(), people: BTreeMap::new() }
    }

    /// Fetches the picture of everyone from the video.
    fn portraits(&self) -> Result<BTreeMap<Who, image::RgbImage>, LabelError> {
        let times_ns: BTreeSet<u64> = self.people.values().map(|seen| seen.pts_ns).collect();
        let mut portraits = BTreeMap::new();
        discover::pictures(&self.job.video, &times_ns, |pts_ns, mut picture| {
            let shown = || self.people.iter().filter(|(_, seen)| seen.pts_ns == pts_ns);
            if let (Some(redactor), Some((_, seen))) = (&self.redactor, shown().next()) {
                redactor.draw_rgb(&mut picture, &seen.covered);
            }
            for (who, seen) in shown() {
                portraits.extend(discover::portrait(&picture, &seen.face).map(|one| (who.clone(), one)));
            }
        })?;
        Ok(portraits)
    }

    /// The command that gives a stranger a name.
    fn enroll(&self, who: &Who) -> Option<String> {
        let analysis = self.job.analysis.as_deref().filter(|_| who.name().is_none()).map(Path::display)?;
        let tracks: Vec<String> = self.people.get(who)?.tracks.iter().map(ToString::to_string).collect();
        Some(format!("sphereface enroll NAME --from \"{analysis}#{}\"", tracks.join(",")))
    }
}

impl Subscriber for PageWriter {
    fn opened(&mut self, video: &VideoFacts) -> Result<(), LabelError> {
        self.title.clone_from(&video.name);
        Ok(())
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        for one in &frame.faces {
            let (Some(who), Some(track)) = (one.who(), one.track) else { continue };
            let weight = weight_inside(&one.face, &one.quality);
            let view = |tracks| Seen {
                weight,
                pts_ns: frame.pts_ns,
                face: one.face,
                covered: frame.covered.clone(),
                tracks,
            };
            let seen = self.people.entry(who).or_insert_with(|| view(BTreeSet::new()));
            if weight > seen.weight {
                *seen = view(std::mem::take(&mut seen.tracks));
            }
            seen.tracks.insert(track);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, end: &Ending<'_>) -> Result<(), LabelError> {
        let mut portraits = self.portraits()?;
        let people = end.people.iter().map(|appearance| PagePerson {
            appearance: appearance.clone(),
            thumbnail: portraits.remove(&appearance.who),
            best_ns: self.people.get(&appearance.who).map(|seen| seen.pts_ns),
            enroll: self.enroll(&appearance.who),
        });
        let people = people.collect();
        let Self { job, colours, title, .. } = *self;
        let video = if job.embed { PageVideo::Embedded(job.play) } else { PageVideo::Beside(job.play) };
        let page = Page { title, people, colours, duration_ns: end.end_ns, video, facts: job.facts };
        Ok(page.write(job.output, &job.path)?)
    }
}
