//! `sphereface enroll`: adds people to a gallery.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::UsageError;
use super::faces::{self, Tracks};
use super::options::{DetectionArgs, DeviceArgs};
use sphereface::detect::Detector;
use sphereface::file::counted;
use sphereface::gallery::{Choice, GalleryError, GalleryFolder, NewStill, PersonName, Tagged};
use sphereface::media::{ONLY_FIRST, is_animated};
use sphereface::xmp;

/// Enrol people from stills
///
/// If a still shows several faces, the largest is used and the positions of all are printed. Each
/// still of a person becomes a template. A still whose face is already enrolled under another name
/// is skipped; everything else is enrolled, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface enroll \"Ada Lovelace\" ada-1.jpg ada-2.jpg\n  \
    sphereface enroll \"Ada Lovelace\" pictures-of-ada/\n  \
    sphereface enroll --dir people --gallery staff\n  \
    sphereface enroll --xmp Pictures/2025 --gallery family\n  \
    sphereface enroll \"Ada Lovelace\" --from clip.parquet#7,12 --from other.parquet#3")]
pub struct EnrollArgs {
    /// Name of the person
    #[arg(required_unless_present_any = ["dir", "xmp"], conflicts_with_all = ["dir", "xmp"])]
    name: Option<String>,
    /// Stills of the person, or folders of stills, including their subfolders
    #[arg(required_unless_present_any = ["dir", "from", "xmp"], conflicts_with_all = ["dir", "xmp"])]
    stills: Vec<PathBuf>,
    /// Tracks of an analysis that show the person; their best views become stills. The video must be
    /// beside the analysis, or given with --video
    #[arg(long, value_name = "ANALYSIS#TRACK,...", value_parser = Tracks::parser(), conflicts_with_all = ["dir", "xmp"])]
    from: Vec<Tracks>,
    /// Video of --from, or its folder, if it is not beside the analysis
    #[arg(long, value_name = "PATH", requires = "from")]
    video: Option<PathBuf>,
    /// Folder with one subfolder of stills, or one still, per person, named after the person. Stills
    /// in deeper subfolders count as the person's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Folder of photos, including its subfolders, in which photo software has named faces (Lightroom,
    /// digiKam, Picasa, Windows): XMP regions in sidecars (photo.jpg.xmp or photo.xmp) or inside JPEG,
    /// PNG, TIFF, WebP, HEIC and AVIF files, or Picasa's lists (.picasa.ini). A sidecar with regions replaces
    /// those inside, and these replace Picasa's. May be repeated
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    xmp: Vec<PathBuf>,
    /// Folder of the gallery
    #[arg(long, value_name = "DIR", default_value = "gallery")]
    gallery: PathBuf,
    /// Face to use in a still with several faces: its number from the left, or a point x,y on it
    /// [default: the largest]
    #[arg(long, value_name = "N|X,Y", conflicts_with_all = ["dir", "xmp"])]
    face: Option<Choice>,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl EnrollArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        if !self.xmp.is_empty() {
            return self.enroll_tagged();
        }
        if self.face.is_some() && self.stills.is_empty() {
            return Err(UsageError("--face chooses a face of a still, and no still is given".into()).into());
        }
        let mut refused = Refused::default();
        let people = match (&self.dir, &self.name) {
            (Some(folder), _) => {
                if is_same_folder(folder, &self.gallery) {
                    let folder = folder.display();
                    let sentence =
                        format!("--dir {folder} is also the gallery: choose another folder for one of them");
                    return Err(UsageError(sentence).into());
                }
                people_of(folder, &self.gallery, &mut refused)?
            }
            (None, Some(name)) => vec![(PersonName::new(name)?, stills_of(&self.stills)?)],
            (None, None) => return Err(UsageError("give a name and stills, or --dir".into()).into()),
        };
        let detector = self.detection.detector(&self.device.open_and_tell()?)?;
        // --from is allowed with a single name only.
        let mut of_tracks = Some(faces::of_tracks(&self.from, self.video.as_deref())?);
        let mut examined = Vec::new();
        for (name, stills) in people {
            let mut good = self.examine(&name, &stills, &detector, &mut refused);
            let of_tracks = of_tracks.take().into_iter().flatten();
            good.extend(of_tracks.map(|still| (PathBuf::from(&still.file_name), still)));
            match good.is_empty() {
                true => errln!("warning: {name} is not enrolled: none of their stills can be used"),
                false => examined.push((name, good)),
            }
        }
        if examined.is_empty() {
            bail!("nobody was enrolled: none of {} stills could be used", refused.unusable);
        }
        let gallery = GalleryFolder::create(&self.gallery)?;
        for (name, stills) in examined {
            enroll(&gallery, &name, stills, &mut refused)?;
        }
        refused.end()
    }

    /// Enrols the people whom photo software has named.
    fn enroll_tagged(&self) -> Result<()> {
        let photos = stills_of(&self.xmp)?;
        let detector = self.detection.detector(&self.device.open_and_tell()?)?;
        let mut refused = Refused::default();
        let mut people = WaitingStills::default();
        let (mut named, mut regions, mut used) = (0, 0, 0);
        for photo in photos.iter().filter(|path| !xmp::is_sidecar(path)) {
            let tagged = match Tagged::read(photo, &detector) {
                Ok(Some(tagged)) => tagged,
                Ok(None) => continue,
                Err(error) => {
                    refused.unusable += 1;
                    errln!("{} is not used: {:#}", photo.display(), anyhow::Error::from(error));
                    continue;
                }
            };
            named += 1;
            regions += tagged.faces.len() + tagged.without_face.len();
            used += tagged.faces.len();
            for name in tagged.without_face {
                errln!("{name}: {} is not used: no face was found in their region", photo.display());
            }
            for (text, still) in tagged.faces {
                match PersonName::new(&text) {
                    Ok(name) => people.add(name, photo, still),
                    Err(error) => {
                        refused.people += 1;
                        errln!("{text} in {} is skipped: {error:#}", photo.display());
                    }
                }
            }
            if people.bytes > MOST_WAITING {
                people.enroll(&self.gallery, &mut refused)?;
            }
        }
        people.enroll(&self.gallery, &mut refused)?;
        let (photos, faces) = (counted(named, "photo"), counted(regions, "named face"));
        outln!("{photos} with {faces}, {used} of them found");
        if !refused.others && refused.taken == 0 {
            bail!("nobody was enrolled: no photo has a named face that can be used");
        }
        refused.end()
    }

    /// The faces of a person's stills, with their files.
    fn examine(
        &self,
        name: &PersonName,
        stills: &[PathBuf],
        detector: &Detector,
        refused: &mut Refused,
    ) -> Vec<(PathBuf, NewStill)> {
        let mut good = Vec::new();
        for still in stills {
            match NewStill::read(still, self.face.unwrap_or_default(), detector) {
                Ok(new) => {
                    report(name, still, &new);
                    good.push((still.clone(), new));
                }
                Err(error) => {
                    refused.unusable += 1;
                    errln!("{name}: {} is not used: {:#}", still.display(), anyhow::Error::from(error));
                }
            }
        }
        good
    }
}

/// Bytes of photos that wait to be enrolled together.
const MOST_WAITING: usize = 256 << 20;

/// Stills that wait to be enrolled: a gallery is read once for many of them, but memory is limited.
#[derive(Default)]
struct WaitingStills {
    people: BTreeMap<PersonName, Vec<(PathBuf, NewStill)>>,
    bytes: usize,
}

impl WaitingStills {
    fn add(&mut self, name: PersonName, photo: &Path, still: NewStill) {
        remark(&name, photo, &still);
        self.bytes += still.bytes.len();
        self.people.entry(name).or_default().push((photo.to_owned(), still));
    }

    fn enroll(&mut self, gallery: &Path, refused: &mut Refused) -> Result<()> {
        self.bytes = 0;
        if self.people.is_empty() {
            return Ok(());
        }
        let gallery = GalleryFolder::create(gallery)?;
        std::mem::take(&mut self.people)
            .into_iter()
            .try_for_each(|(name, stills)| enroll(&gallery, &name, stills, refused))
    }
}

/// What was skipped; everything else is enrolled.
#[derive(Default)]
struct Refused {
    /// Whether anyone was enrolled.
    others: bool,
    /// Stills without a usable face, or that cannot be read.
    unusable: usize,
    /// Stills of faces that are enrolled under another name.
    taken: usize,
    /// Folders or files whose name cannot be a person's, or that cannot be read.
    people: usize,
}

impl Refused {
    /// Fails if something was skipped that needs a decision.
    fn end(&self) -> Result<()> {
        let taken = format!("{} enrolled under another name", counted(self.taken, "still"));
        let left_out = [(self.taken, taken), (self.people, counted(self.people, "person"))];
        let left_out: Vec<String> =
            left_out.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
        let rest = if self.others { "everything else is enrolled" } else { "nobody was enrolled" };
        match left_out.is_empty() {
            true => Ok(()),
            false => bail!("skipped, see above: {}; {rest}", left_out.join(" and ")),
        }
    }
}

/// Enrols a person with all stills except those whose face is already enrolled under another name.
fn enroll(
    gallery: &GalleryFolder,
    name: &PersonName,
    mut stills: Vec<(PathBuf, NewStill)>,
    refused: &mut Refused,
) -> Result<()> {
    while !stills.is_empty() {
        match gallery.enroll(name, stills.iter().map(|(_, still)| still.clone()).collect()) {
            Err(GalleryError::EnrolledAs { still, person, .. }) if still < stills.len() => {
                let (path, _) = stills.remove(still);
                refused.taken += 1;
                errln!(
                    "{name}: {} is not used: its face is already enrolled as {person}; remove it from that person \
                     (sphereface gallery remove) or from this one",
                    path.display()
                );
            }
            done => {
                let done = done?;
                let (added, all) = (done.added, done.person.stills.len());
                refused.others = true;
                outln!("{name}: {}, {all} in all", counted(added, "new still"));
                return Ok(());
            }
        }
    }
    errln!("warning: {name} is not enrolled: all their stills are enrolled under another name");
    Ok(())
}

/// Prints the remarks about a still that was used.
fn report(name: &PersonName, path: &Path, still: &NewStill) {
    if still.examined.faces.len() > 1 {
        outln!(
            "{name}: {} shows several faces, number {} was used: {}; choose another with --face",
            path.display(),
            still.examined.number,
            still.examined.places()
        );
    }
    remark(name, path, still);
}

/// Prints the problems of a still that was used.
fn remark(name: &PersonName, path: &Path, still: &NewStill) {
    if is_animated(&still.bytes) {
        errln!("warning: {name}: {}: {ONLY_FIRST}", path.display());
    }
    for problem in still.examined.problems() {
        outln!("{name}: {}: {problem}", path.display());
    }
}

/// The stills named, and those in the folders named.
fn stills_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut stills = Vec::new();
    for path in paths {
        if path.is_dir() {
            add_files(path, &mut stills, &mut BTreeSet::new())?;
        } else {
            stills.push(path.clone());
        }
    }
    Ok(stills)
}

/// The files in a folder and its subfolders, by name. Each folder is read once, even if several links
/// lead to it.
fn add_files(folder: &Path, files: &mut Vec<PathBuf>, seen: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.to_owned())) {
        return Ok(());
    }
    // Beside the stills of a person, a gallery has their crops, and pictures of others.
    let is_person = folder.join("person.json").is_file();
    let own = |entry: &PathBuf| !is_person || entry.file_name().is_some_and(|name| name == "stills");
    for entry in entries(folder)?.into_iter().filter(own) {
        if entry.is_dir() {
            add_files(&entry, files, seen)?;
        } else {
            files.push(entry);
        }
    }
    Ok(())
}

/// Whether two paths lead to one folder that exists.
fn is_same_folder(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// One subfolder or still per person, in the order of their names.
/// The gallery is nobody, if it is one of the folders.
fn people_of(
    folder: &Path,
    gallery: &Path,
    refused: &mut Refused,
) -> Result<Vec<(PersonName, Vec<PathBuf>)>> {
    let mut all = entries(folder)?;
    all.retain(|entry| !is_same_folder(entry, gallery));
    if all.is_empty() {
        bail!("{} is empty: put one folder of stills, or one still, per person into it", folder.display());
    }
    let mut people = Vec::new();
    for entry in all {
        match person_of(&entry) {
            Ok(person) => people.push(person),
            Err(error) => {
                refused.people += 1;
                errln!("{} is skipped: {error:#}", entry.display());
            }
        }
    }
    Ok(people)
}

/// The person after whom a folder or a still is named, with their stills, including those in
/// subfolders.
fn person_of(entry: &Path) -> Result<(PersonName, Vec<PathBuf>)> {
    let is_folder = entry.is_dir();
    let name = if is_folder { entry.file_name() } else { entry.file_stem() };
    let name = PersonName::new(&name.unwrap_or_default().to_string_lossy())?;
    let stills = stills_of(&[entry.to_owned()])?;
    let deeper = stills.iter().filter(|still| is_folder && still.parent() != Some(entry)).count();
    if deeper > 0 {
        outln!("{name}: {deeper} of {} stills lie in deeper folders and count as theirs", stills.len());
    }
    Ok((name, stills))
}

/// The entries of a folder, by name, without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().with_context(|| format!("{} cannot be read", folder.display()))?;
    paths.retain(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}
