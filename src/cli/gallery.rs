//! `sphereface gallery`: lists, checks, edits and calibrates a gallery.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::faces::{self, Tracks};
use super::options::{self, DetectionArgs, DeviceArgs, ModelArgs, ThresholdArgs};
use super::{UsageError, outputs};
use sphereface::analysis::Analysis;
use sphereface::annotate::{SheetCell, SheetRow, contact_sheet};
use sphereface::detect::SURE_SCORE;
use sphereface::discover::{self, Member};
use sphereface::engine::{Known, templates};
use sphereface::file::counted;
use sphereface::gallery::{
    Choice, Circumstances, Finding, GalleryFolder, NewStill, Person, PersonName, ThresholdCalibration,
    Viewpoint, check, expected_false_matches,
};
use sphereface::identify::{self, Calibration, Identifier, Threshold};
use sphereface::media::write_still;

/// List, check and edit a gallery
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface gallery list\n  \
    sphereface gallery show \"Ada Lovelace\" --json\n  \
    sphereface gallery rename \"Ada Lovelace\" \"Ada King\"\n  \
    sphereface gallery remove \"Ada Lovelace\" --gallery staff\n  \
    sphereface gallery reject \"Ada Lovelace\" --from clip.parquet#12\n  \
    sphereface gallery check --sheet findings.png\n  \
    sphereface gallery calibrate --fpir 1e-2 street.parquet shop.parquet")]
pub struct GalleryArgs {
    #[command(subcommand)]
    command: GalleryCommand,
}

#[derive(Debug, Subcommand)]
enum GalleryCommand {
    /// List all people with the number of their stills
    List(GalleryPlace),
    /// Show one person and their stills
    Show(Named),
    /// Give a person another name
    Rename(RenameArgs),
    /// Remove a person and their stills
    Remove(Named),
    /// Add a counter-example: lowers the threshold for this name near that face
    Reject(Box<RejectArgs>),
    /// Find mislabelled and poor stills, duplicate people, and people who look too alike
    Check(CheckArgs),
    /// Set the threshold angle from strangers in your own videos
    Calibrate(CalibrateArgs),
}

#[derive(Debug, Args)]
struct GalleryPlace {
    /// Folder of the gallery
    #[arg(long, value_name = "DIR", default_value = "gallery")]
    gallery: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the person
    name: String,
    #[command(flatten)]
    place: GalleryPlace,
}

#[derive(Debug, Args)]
struct RenameArgs {
    /// Name of the person
    name: String,
    /// Their new name, which nobody in the gallery has
    new_name: String,
    #[command(flatten)]
    place: GalleryPlace,
}

#[derive(Debug, Args)]
struct RejectArgs {
    /// Name of the person who is not shown
    name: String,
    /// Stills of people who were mistaken for this person
    #[arg(required_unless_present = "from")]
    stills: Vec<PathBuf>,
    /// Tracks of an analysis that show someone else
    #[arg(long, value_name = "ANALYSIS#TRACK,...", value_parser = Tracks::parser())]
    from: Vec<Tracks>,
    /// Video of --from, or its folder, if it is not beside the analysis
    #[arg(long, value_name = "PATH", requires = "from")]
    video: Option<PathBuf>,
    /// Face to use in a still with several faces: its number from the left, or a point x,y on it
    /// [default: the largest]
    #[arg(long, value_name = "N|X,Y")]
    face: Option<Choice>,
    #[command(flatten)]
    place: GalleryPlace,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    place: GalleryPlace,
    /// Contact sheet of the affected stills
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
}

#[derive(Debug, Args)]
struct CalibrateArgs {
    /// Analyses of videos that show strangers, written by `sphereface label VIDEO --analysis FILE`
    #[arg(required = true)]
    analyses: Vec<PathBuf>,
    /// Target false positive identification rate (FPIR): the share of strangers who may be named, for
    /// example 1e-2. Measuring it takes at least 1 / RATE strangers
    #[arg(long, value_name = "RATE", value_parser = identify::parse_fmr)]
    fpir: f64,
    /// Tracks to exclude because they show people of the gallery
    #[arg(long, value_name = "ANALYSIS#TRACK,...", value_parser = Tracks::parser())]
    known: Vec<Tracks>,
    /// Exclude tracks with fewer embedded views, 1 or more
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    min_views: u16,
    /// Exclude tracks whose best detector score is lower, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = SURE_SCORE, value_parser = options::parse_share)]
    min_score: f32,
    /// Print the angle without changing the gallery
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: GalleryPlace,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl GalleryArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            GalleryCommand::List(place) => {
                let people = GalleryFolder::open(&place.gallery)?.people()?;
                if place.json {
                    outln!("{}", json!(people.iter().map(describe).collect::<Vec<_>>()));
                } else {
                    people.iter().for_each(|p| outln!("{}: {}", p.name, counted(p.stills.len(), "still")));
                }
            }
            GalleryCommand::Show(Named { name, place }) => {
                let person = GalleryFolder::open(&place.gallery)?.person(&PersonName::new(&name)?)?;
                show(&person, place.json);
            }
            GalleryCommand::Rename(RenameArgs { name, new_name, place }) => {
                let (from, to) = (PersonName::new(&name)?, PersonName::new(&new_name)?);
                let person = GalleryFolder::open(&place.gallery)?.rename(&from, &to)?;
                if place.json {
                    outln!("{}", describe(&person));
                } else {
                    outln!("{from} is called {} now", person.name);
                }
            }
            GalleryCommand::Remove(Named { name, place }) => {
                let person = GalleryFolder::open(&place.gallery)?.remove(&PersonName::new(&name)?)?;
                if place.json {
                    outln!("{}", describe(&person));
                } else {
                    outln!("removed {} with {}", person.name, counted(person.stills.len(), "still"));
                }
            }
            GalleryCommand::Reject(args) => args.run()?,
            GalleryCommand::Check(args) => args.run()?,
            GalleryCommand::Calibrate(args) => args.run()?,
        }
        Ok(())
    }
}

fn describe(person: &Person) -> serde_json::Value {
    json!({
        "name": person.name.as_str(),
        "folder": person.folder,
        "stills": person.stills,
        "rejected": person.rejected,
        "missing": person.missing,
    })
}

fn show(person: &Person, as_json: bool) {
    if as_json {
        outln!("{}", describe(person));
        return;
    }
    outln!("{} in {}", person.name, person.folder.display());
    for still in &person.stills {
        let problems: Vec<String> = still.quality.verdict().iter().map(ToString::to_string).collect();
        let problems = if problems.is_empty() { "good".into() } else { problems.join("; ") };
        outln!("  {}: face {:.0} pixels high, {problems}", still.file, still.face.bbox.height());
    }
    person.missing.iter().for_each(|file| outln!("  {file}: the file is missing and no longer used"));
    person.rejected.iter().for_each(|still| outln!("  not {}: {}", person.name, still.file));
}

impl RejectArgs {
    fn run(self) -> Result<()> {
        if self.face.is_some() && self.stills.is_empty() {
            return Err(UsageError("--face chooses a face of a still, and no still is given".into()).into());
        }
        let name = PersonName::new(&self.name)?;
        let gallery = GalleryFolder::open(&self.place.gallery)?;
        // Fails early, before anything is decoded.
        gallery.person(&name)?;
        let mut stills = faces::of_tracks(&self.from, self.video.as_deref())?;
        if !self.stills.is_empty() {
            let detector = self.detection.detector(&self.device.open_and_tell()?)?;
            for path in &self.stills {
                let still = NewStill::read(path, self.face.unwrap_or_default(), &detector);
                stills.push(still.with_context(|| format!("{} is not used", path.display()))?);
            }
        }
        let done = gallery.reject(&name, stills)?;
        if self.place.json {
            outln!("{}", describe(&done.person));
        } else {
            let all = done.person.rejected.len();
            outln!("{name}: {} new counter-examples, {all} in all", done.added);
        }
        Ok(())
    }
}

impl CheckArgs {
    fn run(self) -> Result<()> {
        if let Some(sheet) = &self.sheet {
            outputs::refuse_own(&[("--sheet", sheet)], &self.place.gallery, "gallery")?;
            outputs::check_sheets(&[("--sheet", sheet)])?;
        }
        let gallery = GalleryFolder::open(&self.place.gallery)?;
        let people = gallery.people()?;
        let embedder = self.model.embedder(&self.device.open_and_tell()?)?;
        let Known { templates, threshold, open_templates: count, .. } =
            options::known(&self.threshold, &self.place.gallery, &embedder)?;
        let mut findings = check(&people, &templates, threshold.angle_deg());
        // Strays are found in the folder, not among the people.
        let strays = gallery.strays()?;
        let all: usize = templates.people.iter().map(|person| person.templates.len()).sum();
        let calibration = Calibration::from_metadata(embedder.metadata()).ok();
        let fmr = calibration.and_then(|calibration| calibration.fmr_at(threshold.angle_deg()));
        let expected = fmr.map(|fmr| expected_false_matches(fmr, count));
        findings.sort_by_key(order);
        if self.place.json {
            let texts = findings.iter().map(|finding| {
                json!({ "kind": kind(finding), "text": finding.to_string(), "stills": finding.stills() })
            });
            outln!(
                "{}",
                json!({
                    "findings": texts.collect::<Vec<_>>(),
                    "strays": strays,
                    "threshold": threshold.angle_deg(),
                    "templates": all,
                    "templates_that_say_nothing": all - count,
                    "expected_false_positive_identification_rate": expected,
                })
            );
        } else {
            findings.iter().for_each(|finding| outln!("{}: {finding}", kind(finding)));
            for stray in &strays {
                outln!(
                    "not enrolled: {} holds pictures that were copied there by hand: enrol them with `sphereface enroll`",
                    stray.display()
                );
            }
            outln!(
                "{} people, {all} templates, {} findings; a face is named below {threshold}",
                people.len(),
                findings.len() + strays.len()
            );
            if count < all {
                outln!(
                    "{} of the templates are not used: they are turned too far to the side for this model, or are uncertain detections",
                    all - count
                );
            }
            match expected {
                Some(rate) => outln!(
                    "expected FPIR: at most {:.2} % of strangers are named (FMR per comparison times templates)",
                    rate * 100.0
                ),
                None => outln!("expected FPIR: unknown, because the model is not calibrated at this angle"),
            }
        }
        if let Some(path) = &self.sheet {
            let rows = findings.iter().map(|finding| row(&gallery, &people, finding));
            write_still(path, &contact_sheet(&rows.collect::<Result<Vec<_>>>()?)?)?;
        }
        Ok(())
    }
}

/// The stills of a finding, as a row of the contact sheet.
fn row(gallery: &GalleryFolder, people: &[Person], finding: &Finding) -> Result<SheetRow> {
    let mut cells = Vec::new();
    for (name, file) in finding.stills() {
        let person = people.iter().find(|person| person.name.as_str() == name);
        let still = person.and_then(|person| person.stills.iter().find(|still| still.file == file));
        if let (Some(person), Some(still)) = (person, still) {
            let caption = format!("{name}: {file}");
            cells.push(SheetCell { picture: gallery.crop(person, still)?.to_image(), caption });
        }
    }
    Ok(SheetRow { title: format!("{}: {finding}", kind(finding)), cells })
}

fn kind(finding: &Finding) -> &'static str {
    match finding {
        Finding::Mislabelled { .. } => "mislabelled",
        Finding::Stranger { .. } => "unlike",
        Finding::SamePerson { .. } => "same person",
        Finding::TooAlike { .. } => "too alike",
        Finding::Poor { .. } => "poor",
        Finding::Gone { .. } => "gone",
        Finding::Empty { .. } => "empty",
    }
}

/// Sorts the most severe findings first.
fn order(finding: &Finding) -> u8 {
    match finding {
        Finding::Mislabelled { .. } => 0,
        Finding::SamePerson { .. } => 1,
        Finding::TooAlike { .. } => 2,
        Finding::Stranger { .. } => 3,
        Finding::Empty { .. } => 4,
        Finding::Gone { .. } => 5,
        Finding::Poor { .. } => 6,
    }
}

/// Nearest strangers to print, so that the user can recognise people of the gallery among them.
const SHOWN: usize = 5;

impl CalibrateArgs {
    fn run(self) -> Result<()> {
        let gallery = GalleryFolder::open(&self.place.gallery)?;
        let embedder = self.model.embedder(&self.device.open_and_tell()?)?;
        let templates = templates(&self.place.gallery, &embedder).map_err(options::refused)?;
        let mut analyses = Vec::new();
        for path in &self.analyses {
            let analysis = Analysis::read(path)?;
            analysis.check_model(path, embedder.model())?;
            analyses.push(analysis);
        }
        let mut known = BTreeSet::new();
        for Tracks { analysis, tracks } in &self.known {
            let Some(file) = self.analyses.iter().position(|path| path == analysis) else {
                let analysis = analysis.display();
                return Err(UsageError(format!(
                    "--known {analysis} is not one of the given analyses: add it to them, or omit it"
                ))
                .into());
            };
            for track in tracks {
                if !analyses[file].observations.iter().any(|one| one.track == *track) {
                    let analysis = analysis.display();
                    return Err(UsageError(format!("--known: {analysis} has no track {track}")).into());
                }
                known.insert((file, *track));
            }
        }
        let mut members = discover::members(&analyses, usize::from(self.min_views), self.min_score)?;
        members.retain(|member| !known.contains(&(member.file, member.track)));
        let Some(same_deg) = identify::same_person_deg(embedder.metadata()) else {
            bail!("the model {} is not calibrated, so strangers cannot be distinguished", self.model.model);
        };
        // The angle to the nearest person does not depend on the threshold, so any will do.
        let identifier = Identifier::new(&templates, Threshold::from_angle(same_deg)?)?;
        let mut strangers: Vec<(f32, &Member, String)> = Vec::new();
        // Poor views are grouped too: counting a stranger twice would overstate the certainty of the
        // measurement.
        for person in discover::people(&members, same_deg, |_| true) {
            let mut nearest: Option<(f32, &Member, String)> = None;
            for member in person.into_iter().map(|index| &members[index]) {
                let found = identifier.identify(&member.template, Viewpoint::FRONTAL)?.nearest;
                if let Some(found) =
                    found.filter(|one| nearest.as_ref().is_none_or(|held| one.angle_deg < held.0))
                {
                    nearest = Some((found.angle_deg, member, found.name));
                }
            }
            strangers.extend(nearest);
        }
        strangers.sort_by(|a, b| a.0.total_cmp(&b.0));
        let angles: Vec<f32> = strangers.iter().map(|one| one.0).collect();
        let circumstances = Circumstances {
            model: embedder.model(),
            people: templates.people.len(),
            templates: identifier.templates_len(),
            videos: analyses.iter().map(|analysis| analysis.video.name.clone()).collect(),
        };
        let footage = ThresholdCalibration::measure(&angles, self.fpir, circumstances)?;
        if !self.dry_run {
            gallery.keep_threshold_calibration(&footage)?;
        }
        if self.place.json {
            outln!("{}", serde_json::to_string(&footage)?);
            return Ok(());
        }
        outln!("a face is named below {footage}");
        outln!(
            "the strangers nearest to a person in the gallery; if one of them is that person, exclude the track with --known:"
        );
        for (angle, member, name) in strangers.iter().take(SHOWN) {
            let analysis = self.analyses[member.file].display();
            outln!("  {angle:.1} degrees from {name}: --known {analysis}#{}", member.track);
        }
        if self.dry_run {
            outln!("nothing was changed (--dry-run)");
        }
        Ok(())
    }
}
