//! `sphereface library`: the people in many videos and photos.

mod ask;
mod change;
mod gallery;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::UsageError;
use super::options::{
    self, DetectionArgs, DeviceArgs, MarginArgs, ModelArgs, PrecisionArgs, ThreadArgs, ThresholdArgs,
};
use sphereface::engine::{Engine, EngineError, GalleryOptions};
use sphereface::gallery::GalleryFolder;
use sphereface::library::{Library, LibraryError, Names};

/// The folder of a library, unless another is given.
const DEFAULT_FOLDER: &str = "sphereface-library";
/// Setting: how names are decided, as JSON.
const NAMING: &str = "naming";
/// Setting: the state of the gallery when names were last decided.
const GALLERY_STATE: &str = "gallery";

/// Index the people in many videos and photos
///
/// Add folders, let workers analyse the files, then search for people. Files are identified by their content:
/// one that is moved, renamed or copied is analysed once. Names follow the gallery without decoding anything
/// again. With --database, any number of machines can work on one library.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library add ~/Videos ~/Photos\n  \
    sphereface library work --gallery family\n  \
    sphereface library find \"Grandma\" --after 2019-01-01 --html grandma.html\n  \
    sphereface library find --with Ada --with Boris --together --m3u both.m3u\n  \
    sphereface library strangers\n  \
    sphereface library name 3 \"Aunt Mary\"\n  \
    sphereface library work --database postgres://me@host/faces --library /srv/faces")]
pub struct LibraryArgs {
    #[command(flatten)]
    place: LibraryPlace,
    #[command(subcommand)]
    command: LibraryCommand,
}

/// The location of the library.
#[derive(Debug, Args)]
struct LibraryPlace {
    /// Folder of the library: the catalogue and the analyses
    #[arg(long, value_name = "DIR", default_value = DEFAULT_FOLDER, global = true)]
    library: PathBuf,
    /// PostgreSQL database for the catalogue and the queue, so that several machines can work on them:
    /// postgres://USER@HOST/DATABASE. The folder then holds the analyses only, and all machines must
    /// see it
    #[arg(long, value_name = "ADDRESS", env = "SPHEREFACE_DATABASE", hide_env_values = true, global = true)]
    database: Option<String>,
    /// Bucket for the analyses, s3://BUCKET/FOLDER, instead of the folder: given once, before any file is
    /// analysed, and stored in the library. Region, endpoint and credentials are taken from the environment:
    /// AWS_REGION, AWS_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "ADDRESS", global = true)]
    analyses: Option<String>,
}

#[derive(Debug, Subcommand)]
enum LibraryCommand {
    Add(work::AddArgs),
    Work(Box<work::WorkArgs>),
    Watch(Box<work::WatchArgs>),
    Status(work::StatusArgs),
    Find(ask::FindArgs),
    People(ask::PeopleArgs),
    Strangers(ask::StrangersArgs),
    Name(change::NameArgs),
    Merge(change::MergeArgs),
    Split(change::SplitArgs),
    Retry(work::RetryArgs),
    Forget(change::ForgetArgs),
    Gallery(gallery::GalleryArgs),
    Export(ask::ExportArgs),
    Plan(Box<work::PlanArgs>),
    Shard(Box<work::ShardArgs>),
}

impl LibraryArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let place = &self.place;
        match self.command {
            LibraryCommand::Add(args) => args.run(place),
            LibraryCommand::Work(args) => args.run(place),
            LibraryCommand::Watch(args) => args.run(place),
            LibraryCommand::Status(args) => args.run(place),
            LibraryCommand::Find(args) => args.run(place),
            LibraryCommand::People(args) => args.run(place),
            LibraryCommand::Strangers(args) => args.run(place),
            LibraryCommand::Name(args) => args.run(place),
            LibraryCommand::Merge(args) => args.run(place),
            LibraryCommand::Split(args) => args.run(place),
            LibraryCommand::Retry(args) => args.run(place),
            LibraryCommand::Forget(args) => args.run(place),
            LibraryCommand::Gallery(args) => args.run(place),
            LibraryCommand::Export(args) => args.run(place),
            LibraryCommand::Plan(args) => args.run(place),
            LibraryCommand::Shard(args) => args.run(),
        }
    }
}

impl LibraryPlace {
    /// Opens the library.
    fn open(&self) -> Result<Library> {
        let opened = match &self.database {
            Some(address) => Library::connect(address, &self.library),
            None => Library::open(&self.library),
        };
        self.with_bucket(opened)
    }

    /// Opens the library, or creates an empty one.
    fn create(&self) -> Result<Library> {
        let opened = match &self.database {
            Some(address) => Library::connect(address, &self.library),
            None => Library::create(&self.library),
        };
        self.with_bucket(opened)
    }

    fn with_bucket(&self, opened: Result<Library, LibraryError>) -> Result<Library> {
        let mut library = opened.map_err(refused)?;
        if let Some(address) = &self.analyses {
            library.keep_analyses_at(address).map_err(refused)?;
        }
        Ok(library)
    }
}

/// Turns errors about the request into usage errors, and adds advice to others.
fn refused(error: LibraryError) -> anyhow::Error {
    match error {
        LibraryError::NoLibrary(_) => anyhow::anyhow!(
            "{error}: make one with `sphereface library add FOLDER`, or give its folder with --library DIR"
        ),
        LibraryError::Address(_) | LibraryError::Request(_) => UsageError(error.to_string()).into(),
        LibraryError::OtherModel { .. } => anyhow::anyhow!("{error} (--model)"),
        LibraryError::Analysis(sphereface::analysis::AnalysisError::Read { .. }) => {
            anyhow::anyhow!("{error}: is --library the folder that the workers wrote to?")
        }
        LibraryError::Engine(error) => options::refused(error),
        other => other.into(),
    }
}

/// How names are decided; stored in the library, so that every command decides in the same way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Naming {
    gallery: Option<PathBuf>,
    model: String,
    threshold_deg: Option<f64>,
    fmr: Option<f64>,
    margin_deg: f64,
}

/// How files are analysed and people are named.
#[derive(Debug, Args)]
struct EngineArgs {
    /// Gallery of the people to name, stored for later commands [default: the one given last, else the shared
    /// gallery of the library (`library gallery`)]
    #[arg(long, value_name = "DIR", help_heading = "Recognition")]
    gallery: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    margin: MarginArgs,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten, next_help_heading = "Running")]
    device: DeviceArgs,
    #[command(flatten, next_help_heading = "Running")]
    threads: ThreadArgs,
}

impl EngineArgs {
    /// The engine.
    fn engine(&self) -> Result<Engine> {
        work::engine(&self.model, self.precision, &self.detection, self.device, &self.threads)
    }

    /// The people to name; the settings are stored.
    fn people(&self, library: &Library, engine: &Engine) -> Result<People> {
        // Nothing is stored if that is refused.
        library.check_model(engine).map_err(refused)?;
        let before = naming(library)?;
        let gallery = match &self.gallery {
            Some(folder) => {
                let whole = folder.canonicalize();
                let whole =
                    whole.with_context(|| format!("the gallery {} cannot be read", folder.display()))?;
                // All names would be removed because of a wrong path.
                if GalleryFolder::open(&whole)?.people()?.is_empty() {
                    return Err(options::refused(EngineError::NobodyEnrolled(folder.clone())));
                }
                Some(whole)
            }
            None => before.gallery,
        };
        if let Some(missing) = gallery.as_ref().filter(|folder| !folder.is_dir()) {
            bail!(
                "the gallery {} of this library does not exist: make it available, or give another with --gallery DIR",
                missing.display()
            );
        }
        let naming = Naming {
            gallery,
            model: self.model.model.clone(),
            threshold_deg: self.threshold.threshold,
            fmr: self.threshold.fmr,
            margin_deg: self.margin.margin,
        };
        library.set_setting(NAMING, &serde_json::to_string(&naming)?).map_err(refused)?;
        People::load(library, engine, naming)
    }
}

/// The settings of the last decision.
fn naming(library: &Library) -> Result<Naming> {
    let stored = library.setting(NAMING).map_err(refused)?;
    Ok(stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// The people to name, and the copy of the shared gallery from which they come, if no other gallery is set.
struct People {
    naming: Naming,
    names: Names,
    /// A digest of this state of the gallery.
    state: String,
    copy: Option<tempfile::TempDir>,
}

impl People {
    fn load(library: &Library, engine: &Engine, naming: Naming) -> Result<Self> {
        let state = state(library, &naming)?;
        let copy = match naming.gallery.is_none() && library.gallery_change().map_err(refused)? > 0 {
            true => Some(
                tempfile::tempdir().context("a folder for a copy of the shared gallery cannot be made")?,
            ),
            false => None,
        };
        if let Some(copy) = &copy {
            library.get_gallery(copy.path()).map_err(refused)?;
        }
        let folder = copy.as_ref().map(tempfile::TempDir::path).or(naming.gallery.as_deref());
        let names = names(engine, &naming, folder)?;
        Ok(Self { naming, names, state, copy })
    }

    /// The new people, if the shared gallery has changed.
    fn changed(&mut self, library: &Library, engine: &Engine) -> Result<Option<Names>, LibraryError> {
        let Some(copy) = &self.copy else { return Ok(None) };
        let before = std::fs::read_to_string(copy.path().join(".shared")).unwrap_or_default();
        if before.starts_with(&format!("{} ", library.gallery_change()?)) {
            return Ok(None);
        }
        library.get_gallery(copy.path())?;
        let options = gallery_options(&self.naming);
        self.names = Names::of_gallery(engine, Some(copy.path()), &options)?;
        Ok(Some(self.names.clone()))
    }

    /// Decides names again that are out of date.
    fn rename(&self, library: &Library) -> Result<()> {
        rename(library, &self.names)?;
        library.set_setting(GALLERY_STATE, &self.state).map_err(refused)
    }
}

fn gallery_options(naming: &Naming) -> GalleryOptions {
    let request = match (naming.threshold_deg, naming.fmr) {
        (Some(angle_deg), _) => sphereface::identify::ThresholdRequest::AngleDeg(angle_deg),
        (None, Some(fmr)) => sphereface::identify::ThresholdRequest::Fmr(fmr),
        (None, None) => sphereface::identify::ThresholdRequest::Default,
    };
    GalleryOptions::default().threshold(request).margin_deg(naming.margin_deg)
}

fn names(engine: &Engine, naming: &Naming, folder: Option<&Path>) -> Result<Names> {
    Names::of_gallery(engine, folder, &gallery_options(naming)).map_err(options::refused)
}

/// The engine with which the names of a library are decided. Only the gallery is embedded, which is done in
/// f32.
fn engine_of(naming: &Naming) -> Result<Engine> {
    let builder = Engine::builder()
        .device(sphereface::nn::DeviceChoice::Cpu)
        .isa(options::isa()?)
        .precision(sphereface::nn::Arithmetic::F32);
    let model = if naming.model.is_empty() { sphereface::models::SPHEREFACE.name } else { &naming.model };
    builder.model(model).build().map_err(options::refused)
}

/// Brings the names up to date if the gallery has changed since they were decided. The engine is made only if
/// it has.
fn refresh(library: &Library) -> Result<()> {
    let naming = naming(library)?;
    if let Some(missing) = naming.gallery.as_ref().filter(|folder| !folder.is_dir()) {
        errln!("warning: the gallery {} does not exist, so names are as decided before", missing.display());
        return Ok(());
    }
    if library.setting(GALLERY_STATE).map_err(refused)? == Some(state(library, &naming)?) {
        return Ok(());
    }
    let engine = engine_of(&naming)?;
    People::load(library, &engine, naming)?.rename(library)
}

/// Decides names again that are out of date, and prints that.
fn rename(library: &Library, names: &Names) -> Result<()> {
    let bar = super::terminal::bar("{msg} {bar:30} {pos}/{len} files  {eta} left");
    bar.set_message("naming");
    let renamed = library.name_all(names, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let renamed = renamed.map_err(refused)?;
    if renamed.tracks > 0 {
        errln!(
            "the gallery has changed: {} tracks in {} files have other names now",
            renamed.tracks,
            renamed.files
        );
    }
    Ok(())
}

/// A digest of the state of a gallery folder: the names, lengths and times of its files. It is cheap, so that
/// a query needs no network.
fn state(library: &Library, naming: &Naming) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(serde_json::to_string(naming).unwrap_or_default().as_bytes());
    if naming.gallery.is_none() {
        hash.update(&library.gallery_change().map_err(refused)?.to_le_bytes());
    }
    let mut waiting: Vec<PathBuf> = naming.gallery.iter().cloned().collect();
    while let Some(folder) = waiting.pop() {
        let mut paths: Vec<PathBuf> = entries(&folder);
        paths.sort();
        for path in paths {
            let Ok(metadata) = path.metadata() else { continue };
            let derived = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if metadata.is_dir() && !derived {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") && !derived {
                hash.update(path.to_string_lossy().as_bytes());
                hash.update(&metadata.len().to_le_bytes());
                hash.update(format!("{:?}", metadata.modified().ok()).as_bytes());
            }
        }
    }
    Ok(hash.finalize().to_hex()[..32].to_owned())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
