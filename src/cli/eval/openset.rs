//! `sphereface eval openset`: open-set identification.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{BATCH, FoundFace, ImageArgs, UsageError, group_table, percent, progress};
use crate::cli::options::{
    self, DeviceArgs, MarginArgs, ModelArgs, PrecisionArgs, ThreadArgs, ThresholdArgs,
};
use sphereface::align::Crop;
use sphereface::embed::{Embedder, Embedding, Mirror};
use sphereface::engine::Known;
use sphereface::eval::groups::{self, GroupRate, Labels, Trial};
use sphereface::eval::openset::{self, Decided, Estimate, Named, OpenSet, Search, SplitOptions};
use sphereface::eval::people::{Person, people};
use sphereface::gallery::{PersonTemplates, Template, Templates, Viewpoint, expected_false_matches};
use sphereface::identify::{
    Calibration, Identifier, Threshold, ThresholdError, ThresholdRequest, ViewCalibration,
};

/// Measure open-set identification
///
/// Splits a folder of people into a gallery, probes of enrolled people, and strangers. Templates and
/// probes are made as by `label`: a template is averaged with its mirror image, a probe is not, and a
/// person's score is that of the nearest template.
///
/// Prints the identification rate by rank (closed set) and the detection and identification rate (DIR,
/// open set) at false positive identification rates (FPIR) of 1e-1, 1e-2 and 1e-3, with 95 %
/// intervals by bootstrap over people. DIR is the share of probes that are given the right name.
///
/// Also prints how many probes are named at the threshold and margin of `label`, each probe as a single view. As in
/// `label`, the mean of a person's frontal images is a template too, and the threshold depends on the views of both faces;
/// faces of --aligned images count as seen from the front. Beside the share of strangers that are named stands the
/// one that `gallery check` expects of such a gallery.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface eval openset lfw-112x112 --aligned --plot openset.png\n  \
    sphereface eval openset photos --gallery-images 3 --strangers 0.3 --seed 7 --json\n  \
    sphereface eval openset faces-of-the-camera --gallery gallery")]
pub struct OpensetArgs {
    /// Folder with one folder of images per person
    #[arg(value_name = "PEOPLE")]
    people: PathBuf,
    #[command(flatten)]
    input: ImageArgs,
    /// Gallery whose people are the enrolled ones, with its stills and its threshold. All images are then probes: those of
    /// people with the name of an enrolled one, and of strangers
    #[arg(long, value_name = "DIR", conflicts_with_all = ["gallery_images", "strangers"])]
    gallery: Option<PathBuf>,
    /// Images per enrolled person in the gallery, 1 to 1000; the others are probes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    gallery_images: u16,
    /// Share of the people with enough images who are not enrolled, 0 to 0.99. People with too few
    /// images are always strangers
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    strangers: f64,
    /// Seed of the split and the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Replicates of the bootstrap, 100 to 100000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    bootstrap: u32,
    /// Plot of DIR against FPIR, .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Labels of the images or people, a CSV file with a heading such as `image,sex,age`: rates of errors at
    /// the threshold of `label` are then printed for each label
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    margin: MarginArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.99).contains(share));
    share.ok_or_else(|| "give a share of the people, 0 to 0.99".into())
}

impl OpensetArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let read: Vec<&Path> = self.labels.as_deref().into_iter().collect();
        super::check_plot(self.plot.as_deref(), &read, &self.people)?;
        let labels = self.labels.as_deref().map(Labels::read).transpose()?;
        let people = people(&self.people)?;
        let device = self.device.open()?;
        let (embedder, arithmetic) =
            self.model.embedder_in(self.precision.precision, &device, self.threads.count())?;
        options::tell_with(&device, arithmetic);
        let paths: Vec<PathBuf> = people.iter().flat_map(|person| person.images.clone()).collect();
        let (faces, already_aligned) = self.input.crops(&paths, &device, self.threads.count())?;
        let (people, faces, without_face) = with_faces(people, faces);
        let set = Set { people, faces };
        let (gallery, probes) = match &self.gallery {
            Some(folder) => (self.enrolled(folder, &embedder)?, set.all()),
            None => self.split(&set, &embedder)?,
        };
        let probes = set.embedded(&probes, &gallery.templates, &embedder)?;
        let searches = search(&gallery.templates, &probes);
        let result = openset::evaluate(&searches, self.bootstrap as usize, self.seed)?;
        let (mut named, mut groups) = (Vec::new(), None);
        if let Some(rule) = &gallery.rule {
            for margin_deg in [self.margin.margin, 0.0] {
                let decided = decide(&gallery.templates, rule, margin_deg, &probes)?;
                named.push(openset::named(
                    &decided,
                    [rule.threshold.angle_deg(), margin_deg],
                    rule.expected(&embedder),
                    (self.bootstrap as usize, self.seed),
                ));
                if groups.is_none() {
                    groups = labels.as_ref().map(|labels| self.by_group(labels, &set, &probes, &decided));
                }
            }
        }
        if let Some(path) = &self.plot {
            let set = self.people.file_name().unwrap_or(self.people.as_os_str()).to_string_lossy();
            let title = format!("{set}: {} enrolled, {}", gallery.templates.people.len(), self.model.model);
            super::write_plot(path, &result.chart(&title).encode_for(path)?)?;
        }
        if self.json {
            outln!(
                "{}",
                json!({
                    "model": embedder.model().to_string(), "result": result, "named": named, "seed": self.seed,
                    "gallery_images": self.gallery_images, "templates": gallery.templates(),
                    "without_face": without_face, "already_aligned": already_aligned,
                    "groups": groups.as_ref().map(|(strangers, misses)| json!({ "false_matches": strangers, "misses": misses })),
                })
            );
        } else {
            out!("{}", table(&result, &named, &gallery, &without_face)?);
            if let Some((strangers, misses)) = &groups {
                outln!("errors at that threshold and the margin:");
                out!("{}", group_table("strangers named", strangers)?);
                out!("{}", group_table("not named, or wrongly", misses)?);
            }
            if already_aligned > 0 {
                outln!("{already_aligned} images were already aligned crops and were used unchanged");
            }
        }
        Ok(())
    }

    /// The people of a gallery.
    fn enrolled(&self, folder: &Path, embedder: &Embedder) -> Result<Gallery> {
        let Known { templates, threshold, open_templates, views } =
            options::known(&self.threshold, folder, embedder)?;
        Ok(Gallery { templates, rule: Some(Rule { threshold, open_templates, views }) })
    }

    /// Enrols a part of the set; the other images are probes.
    fn split(&self, set: &Set, embedder: &Embedder) -> Result<(Gallery, Vec<(usize, usize)>)> {
        let request = self.threshold.request();
        let threshold = |templates| Threshold::for_gallery(request, embedder.metadata(), None, templates);
        let decides = match threshold(0) {
            Ok(_) => true,
            // Without a calibration there is no default threshold.
            Err(ThresholdError::NotCalibrated) if request == ThresholdRequest::Default => false,
            Err(error) => return Err(UsageError(error.to_string()).into()),
        };
        let options = SplitOptions {
            gallery_images: self.gallery_images.into(),
            strangers: self.strangers,
            seed: self.seed,
        };
        let split = openset::split(&set.people, &options)?;
        let templates = set.enrol(&split.gallery, embedder)?;
        let gallery = match decides {
            true => {
                let Known { templates, threshold, open_templates, views } =
                    Known::new(templates, embedder, threshold)?;
                Gallery { templates, rule: Some(Rule { threshold, open_templates, views }) }
            }
            false => Gallery { templates, rule: None },
        };
        Ok((gallery, split.probes.into_iter().chain(split.strangers).collect()))
    }

    /// Strangers that are named, and probes of enrolled people that are not, or wrongly, by the labels of the probes.
    fn by_group(
        &self,
        labels: &Labels,
        set: &Set,
        probes: &[Probe],
        decided: &[Decided],
    ) -> (Vec<GroupRate>, Vec<GroupRate>) {
        let (mut strangers, mut mated) = (Vec::new(), Vec::new());
        for (&Probe { place: (person, image), .. }, one) in probes.iter().zip(decided) {
            let Person { name, images } = &set.people[person];
            let path = &images[image];
            let path = path.strip_prefix(&self.people).unwrap_or(path).to_string_lossy().replace('\\', "/");
            let trial = Trial { person, wrong: one.is_wrong(), labels: labels.of(&path, name) };
            if one.is_enrolled { &mut mated } else { &mut strangers }.push(trial);
        }
        let rates =
            |trials: &[Trial]| groups::rates(trials, &labels.columns, self.bootstrap as usize, self.seed);
        (rates(&strangers), rates(&mated))
    }
}

/// The images of a test set that show a face.
struct Set {
    people: Vec<Person>,
    /// The faces in the images of each person, and how they are seen.
    faces: Vec<Vec<FoundFace>>,
}

impl Set {
    /// Every image, as person and image.
    fn all(&self) -> Vec<(usize, usize)> {
        let images = |(person, faces): (usize, &Vec<_>)| (0..faces.len()).map(move |image| (person, image));
        self.faces.iter().enumerate().flat_map(images).collect()
    }

    /// Embeds images.
    fn embed(
        &self,
        images: &[(usize, usize)],
        mirror: Mirror,
        embedder: &Embedder,
    ) -> Result<Vec<Embedding>> {
        let mut scratch = embedder.scratch();
        let bar = progress(images.len(), "embedding");
        let mut embeddings = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let crops: Vec<Crop> = batch.iter().map(|&(person, i)| self.faces[person][i].0.clone()).collect();
            embeddings.extend(embedder.embed(&crops, mirror, &mut scratch)?);
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(embeddings)
    }

    /// Enrols images, which are in the order of people.
    fn enrol(&self, images: &[(usize, usize)], embedder: &Embedder) -> Result<Templates> {
        let mut stills: BTreeMap<usize, Vec<Template>> = BTreeMap::new();
        for (&(person, image), embedding) in
            images.iter().zip(self.embed(images, Mirror::Average, embedder)?)
        {
            let source = self.people[person].images[image].display().to_string();
            let view = self.faces[person][image].1;
            stills.entry(person).or_default().push(Template { source, embedding, view });
        }
        let model = embedder.model();
        let person = |(person, stills): (usize, Vec<Template>)| {
            PersonTemplates::of_stills(self.people[person].name.clone(), model, stills)
        };
        Ok(Templates {
            model,
            people: stills.into_iter().map(person).collect(),
            re_embedded: 0,
            not_saved: None,
        })
    }

    /// Embeds images as probes.
    fn embedded(
        &self,
        images: &[(usize, usize)],
        enrolled: &Templates,
        embedder: &Embedder,
    ) -> Result<Vec<Probe>> {
        let names: BTreeMap<&str, usize> =
            enrolled.people.iter().enumerate().map(|(at, person)| (person.name.as_str(), at)).collect();
        let embeddings = self.embed(images, Mirror::No, embedder)?;
        let probe = |(&(person, image), embedding): (&(usize, usize), Embedding)| Probe {
            place: (person, image),
            own: names.get(self.people[person].name.as_str()).copied(),
            view: self.faces[person][image].1,
            embedding,
        };
        Ok(images.iter().zip(embeddings).map(probe).collect())
    }
}

/// An image that is looked up.
struct Probe {
    /// Its person and its number among the images of that person.
    place: (usize, usize),
    /// Which of the enrolled it shows; `None` for a stranger.
    own: Option<usize>,
    view: Viewpoint,
    embedding: Embedding,
}

/// Who is enrolled.
struct Gallery {
    templates: Templates,
    /// How `label` would decide; `None` for a model without a calibration if no threshold was given.
    rule: Option<Rule>,
}

impl Gallery {
    /// Number of templates.
    fn templates(&self) -> usize {
        self.templates.people.iter().map(|person| person.templates.len()).sum()
    }
}

/// How `label` decides.
struct Rule {
    threshold: Threshold,
    /// Templates that can match.
    open_templates: usize,
    views: Option<ViewCalibration>,
}

impl Rule {
    /// The share of strangers that `gallery check` expects to be named at most.
    fn expected(&self, embedder: &Embedder) -> Option<f64> {
        let calibration = Calibration::from_metadata(embedder.metadata()).ok()?;
        let fmr = calibration.fmr_at(self.threshold.angle_deg())?;
        Some(expected_false_matches(fmr, self.open_templates))
    }
}

/// Scores every probe against everybody enrolled: the largest cosine over the templates of a person.
fn search(enrolled: &Templates, probes: &[Probe]) -> Vec<Search> {
    let score = |probe: &Probe, person: &PersonTemplates| {
        let cosines = person.templates.iter().filter_map(|one| probe.embedding.cosine(&one.embedding));
        cosines.fold(f64::NEG_INFINITY, |most, cosine| most.max(cosine.into()))
    };
    let search = |probe: &Probe| {
        let scores: Vec<f64> = enrolled.people.iter().map(|person| score(probe, person)).collect();
        match probe.own {
            Some(own) => Search::mated(probe.place.0, &scores, own),
            None => Some(Search::of_a_stranger(probe.place.0, &scores)),
        }
    };
    probes.iter().filter_map(search).collect()
}

/// What `label` would say of every probe if it were all that is seen of a person.
fn decide(enrolled: &Templates, rule: &Rule, margin_deg: f64, probes: &[Probe]) -> Result<Vec<Decided>> {
    let identifier = Identifier::new(enrolled, rule.threshold.clone())?
        .with_views(rule.views.clone())
        .with_margin_deg(margin_deg);
    let decide = |probe: &Probe| {
        let name = identifier.identify(&probe.embedding, probe.view)?.name;
        let own = probe.own.map(|own| &enrolled.people[own].name);
        Ok(Decided {
            person: probe.place.0,
            is_enrolled: own.is_some(),
            name_is_right: name.map(|name| Some(&name) == own),
        })
    };
    probes.iter().map(decide).collect()
}

/// The people with the images that have a face, their crops, and the images that have none.
fn with_faces<C>(people: Vec<Person>, crops: Vec<Option<C>>) -> (Vec<Person>, Vec<Vec<C>>, Vec<PathBuf>) {
    let mut crops = crops.into_iter();
    let (mut kept, mut kept_crops, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for person in people {
        let mut images = Vec::new();
        let mut of_person = Vec::new();
        for path in person.images {
            match crops.next().flatten() {
                Some(crop) => {
                    images.push(path);
                    of_person.push(crop);
                }
                None => without.push(path),
            }
        }
        if !images.is_empty() {
            kept.push(Person { name: person.name, images });
            kept_crops.push(of_person);
        }
    }
    (kept, kept_crops, without)
}

fn table(
    result: &OpenSet,
    named: &[Named],
    gallery: &Gallery,
    without_face: &[PathBuf],
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let rate = |e: &Estimate| {
        format!("{:>8} ({:.1} to {:.1})", percent(Some(e.rate)), 100.0 * e.lower, 100.0 * e.upper)
    };
    writeln!(
        out,
        "{} people enrolled with {} templates, {} probes of them; {} images of {} strangers",
        gallery.templates.people.len(),
        gallery.templates(),
        result.mated,
        result.non_mated,
        result.strangers
    )?;
    for at in &result.closed {
        writeln!(out, "closed set, among the best {:>2}: {}", at.rank, rate(&at.identified))?;
    }
    writeln!(out, "{:>8}{:>10}{:>17}{:>25}{:>12}", "FPIR", "angle", "false positives", "DIR", "wrong name")?;
    for at in &result.open {
        let (angle, dir) = (format!("{:.2}deg", at.angle_deg), rate(&at.dir));
        let (fpir, misnamed) = (at.fpir, percent(Some(at.misnamed)));
        writeln!(out, "{fpir:>8.0e}{angle:>10}{:>17}{dir:>25}{misnamed:>12}", at.false_positives)?;
    }
    if result.open.len() < openset::RATES.len() {
        writeln!(out, "lower rates need more images of strangers")?;
    }
    writeln!(out, "intervals: 95 % of {} bootstrap replicates over people", result.replicates)?;
    for one in named {
        let [right, wrong, strangers] =
            [one.right, one.wrong, one.strangers].map(|share| percent(Some(share)));
        let [lower, upper] = one.strangers_interval.map(|share| 100.0 * share);
        write!(
            out,
            "at a threshold of {:.2}deg and a margin of {}deg: {right} of the probes named right, {wrong} named wrong, {strangers} of the strangers named ({lower:.1} to {upper:.1}",
            one.threshold_deg, one.margin_deg
        )?;
        match one.strangers_expected {
            Some(share) => writeln!(out, "; at most {} expected)", percent(Some(share)).trim())?,
            None => writeln!(out, ")")?,
        }
    }
    if !without_face.is_empty() {
        let name = |path: &PathBuf| Path::new(path).display().to_string();
        let names: Vec<String> = without_face.iter().map(name).collect();
        writeln!(out, "excluded because no face was found: {}", names.join(", "))?;
    }
    Ok(out)
}
