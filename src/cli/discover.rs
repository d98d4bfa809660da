//! `sphereface discover`: groups the strangers of analysed videos.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::options::{self, DeviceArgs, MarginArgs, ModelArgs, ThresholdArgs};
use super::{UsageError, faces, outputs};
use sphereface::analysis::Analysis;
use sphereface::annotate::{SheetCell, SheetRow, contact_sheet};
use sphereface::detect::SURE_SCORE;
use sphereface::discover::{self, Member};
use sphereface::identify::{self, decide};
use sphereface::media::write_still;

/// Group the strangers of analysed videos into people
///
/// Prints one line per person with their tracks, longest on screen first. Each line ends with the
/// command that enrols the person. A track with only blurred or side views is listed on its own.
/// Analyses are written by `sphereface label VIDEO --analysis FILE`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface discover clip.parquet --sheet strangers.png\n  \
    sphereface discover monday.parquet tuesday.parquet --gallery staff\n  \
    sphereface enroll \"Ada Lovelace\" --from monday.parquet#7 --from tuesday.parquet#2,5")]
pub struct DiscoverArgs {
    /// Analyses of videos
    #[arg(required = true)]
    analyses: Vec<PathBuf>,
    /// Exclude the people of this gallery
    #[arg(long, value_name = "DIR")]
    gallery: Option<PathBuf>,
    /// Contact sheet with one row per person and the best view of each track. The videos must be
    /// beside the analyses, or given with --video
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Video, or folder of videos, if they are not beside the analyses
    #[arg(long, value_name = "PATH", requires = "sheet")]
    video: Option<PathBuf>,
    /// Mean angle in degrees below which two tracks show one person [default: the model's calibrated
    /// angle]
    #[arg(long, value_name = "ANGLE", value_parser = identify::parse_angle_deg)]
    same: Option<f64>,
    /// Exclude tracks with fewer embedded views, 1 or more
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    min_views: u16,
    /// Exclude tracks whose best detector score is lower, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = SURE_SCORE, value_parser = options::parse_share)]
    min_score: f32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    margin: MarginArgs,
}

/// A person without a name.
struct Stranger<'a> {
    screen_ns: u64,
    tracks: Vec<&'a Member>,
}

impl DiscoverArgs {
    /// Runs the command.
    pub fn run(mut self) -> Result<()> {
        // A file that is given twice shows nobody twice.
        let mut given = BTreeSet::new();
        self.analyses.retain(|path| given.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
        if self.gallery.is_none() && (self.threshold.threshold.is_some() || self.threshold.fmr.is_some()) {
            return Err(UsageError(
                "--threshold and --fmr apply to a gallery only: give one with --gallery, or omit them".into(),
            )
            .into());
        }
        let sheet: Vec<_> = self.sheet.iter().map(|path| ("--sheet", path.as_path())).collect();
        outputs::check_sheets(&sheet)?;
        outputs::refuse_inputs(&sheet, self.analyses.iter().map(PathBuf::as_path))?;
        if let Some(gallery) = &self.gallery {
            outputs::refuse_own(&sheet, gallery, "gallery")?;
        }
        let embedder = self.model.embedder(&self.device.open_and_tell()?)?;
        let mut analyses = Vec::new();
        for path in &self.analyses {
            let analysis = Analysis::read(path)?;
            let video = analysis.find_video(path, self.video.as_deref()).ok();
            outputs::refuse_inputs(&sheet, video.as_deref())?;
            analysis.check_model(path, embedder.model())?;
            analyses.push(analysis);
        }
        let Some(same_deg) = self.same.or_else(|| identify::same_person_deg(embedder.metadata())) else {
            bail!(
                "the model {} is not calibrated: give the angle below which two tracks show one person with --same",
                self.model.model
            );
        };
        let mut members = discover::members(&analyses, usize::from(self.min_views), self.min_score)?;
        if let Some(gallery) = &self.gallery {
            let known = options::known(&self.threshold, gallery, &embedder)?;
            let gallery = known.gallery(self.margin.margin, 1)?;
            let identifier = gallery.identifier();
            let mut named = BTreeSet::new();
            for (file, analysis) in analyses.iter().enumerate() {
                let decisions = decide(&analysis.observations, Some(identifier), Some(same_deg))?;
                let with_name = decisions.iter().filter(|decision| decision.who.name().is_some());
                named.extend(with_name.map(|decision| (file, decision.track)));
            }
            members.retain(|member| !named.contains(&(member.file, member.track)));
        }
        let mut strangers: Vec<Stranger<'_>> = discover::people(&members, same_deg, |one| one.distinct)
            .into_iter()
            .map(|person| {
                let tracks: Vec<&Member> = person.into_iter().map(|index| &members[index]).collect();
                let screen_ns = tracks.iter().map(|one| one.end_ns.saturating_sub(one.start_ns)).sum();
                Stranger { screen_ns, tracks }
            })
            .collect();
        // A stable sort: people with the same screen time stay in the order of appearance.
        strangers.sort_by_key(|stranger| std::cmp::Reverse(stranger.screen_ns));
        if self.json {
            let list = strangers.iter().map(|stranger| {
                json!({
                    "screen_s": stranger.screen_ns as f64 / 1e9,
                    "tracks": stranger.tracks.iter().map(|one| self.spec(one)).collect::<Vec<_>>(),
                    "enroll": self.enroll(stranger),
                })
            });
            outln!("{}", json!(list.collect::<Vec<_>>()));
        } else {
            for (number, stranger) in (1..).zip(&strangers) {
                let (tracks, seconds) = (stranger.tracks.len(), stranger.screen_ns as f64 / 1e9);
                let s = if tracks == 1 { "" } else { "s" };
                outln!("{number}: {seconds:.1} s on screen, {tracks} track{s}: {}", self.enroll(stranger));
            }
            if strangers.is_empty() {
                outln!("there are no strangers");
            }
        }
        if let Some(path) = &self.sheet {
            write_still(path, &self.draw(&analyses, &strangers)?)?;
        }
        Ok(())
    }

    /// A track as written on the command line.
    fn spec(&self, member: &Member) -> String {
        format!("{}#{}", self.analyses[member.file].display(), member.track)
    }

    /// The command that enrols a person.
    fn enroll(&self, stranger: &Stranger<'_>) -> String {
        let mut by_file: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for member in &stranger.tracks {
            by_file.entry(member.file).or_default().push(member.track.to_string());
        }
        let from = by_file.into_iter().map(|(file, tracks)| {
            format!(" --from \"{}#{}\"", self.analyses[file].display(), tracks.join(","))
        });
        let gallery = self.gallery.as_ref().map(|gallery| format!(" --gallery \"{}\"", gallery.display()));
        format!("sphereface enroll NAME{}{}", from.collect::<String>(), gallery.unwrap_or_default())
    }

    /// Draws one row per person and one picture per track.
    fn draw(&self, analyses: &[Analysis], strangers: &[Stranger<'_>]) -> Result<image::RgbImage> {
        let mut pictures = BTreeMap::new();
        for (file, (path, analysis)) in self.analyses.iter().zip(analyses).enumerate() {
            let tracks = strangers.iter().flat_map(|stranger| &stranger.tracks);
            let mut wanted: BTreeMap<u64, Vec<&Member>> = BTreeMap::new();
            for member in tracks.filter(|member| member.file == file) {
                wanted.entry(analysis.observations[member.best].pts_ns).or_default().push(member);
            }
            if wanted.is_empty() {
                continue;
            }
            let video = faces::video_of(path, analysis, self.video.as_deref())?;
            let times_ns: BTreeSet<u64> = wanted.keys().copied().collect();
            discover::pictures(&video, &times_ns, |pts_ns, picture| {
                for member in wanted.get(&pts_ns).into_iter().flatten() {
                    let portrait = discover::portrait(&picture, &analysis.observations[member.best].face);
                    pictures.extend(portrait.map(|portrait| ((file, member.track), portrait)));
                }
            })?;
        }
        let rows = (1..).zip(strangers).map(|(number, stranger)| SheetRow {
            title: format!("{number}: {:.1} s on screen", stranger.screen_ns as f64 / 1e9),
            cells: (stranger.tracks.iter())
                .filter_map(|member| {
                    let picture = pictures.remove(&(member.file, member.track))?;
                    Some(SheetCell { picture, caption: self.spec(member) })
                })
                .collect(),
        });
        let rows: Vec<SheetRow> = rows.collect();
        Ok(contact_sheet(&rows)?)
    }
}
