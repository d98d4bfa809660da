//! `sphereface enroll`: people into a gallery, from stills.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::UsageError;
use super::faces::{self, Tracks};
use super::options::{DetectionArgs, DeviceArgs};
use crate::gallery::{Choice, Gallery, NewStill, PersonName};

/// Enrol people from stills
///
/// Of several faces in a still the largest is taken, and the report says where the others are.
/// All stills of a person are kept, each as a template of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface enroll \"Ada Lovelace\" ada-1.jpg ada-2.jpg\n  \
    sphereface enroll \"Ada Lovelace\" pictures-of-ada/\n  \
    sphereface enroll --dir people --gallery staff\n  \
    sphereface enroll \"Ada Lovelace\" --from clip.parquet#7,12 --from other.parquet#3")]
pub struct EnrollArgs {
    /// Name of the person
    #[arg(required_unless_present = "dir", conflicts_with = "dir")]
    name: Option<String>,
    /// Stills of the person, or folders of them
    #[arg(required_unless_present_any = ["dir", "from"], conflicts_with = "dir")]
    stills: Vec<PathBuf>,
    /// Tracks of an analysed video that show the person: their best views become stills. The
    /// video must lie beside the analysis
    #[arg(long, value_name = "ANALYSIS#TRACK,...", value_parser = Tracks::parser(), conflicts_with = "dir")]
    from: Vec<Tracks>,
    /// Where the video of --from is, when it is not beside the analysis: the file or its folder
    #[arg(long, value_name = "PATH", requires = "from")]
    video: Option<PathBuf>,
    /// A folder with a sub-folder of stills a person, or a still a person, each named after them
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the people are kept
    #[arg(long, value_name = "DIR", default_value = "gallery")]
    gallery: PathBuf,
    /// Which face of a still with several: its number from the left, or a point x,y on it
    /// [default: the largest]
    #[arg(long, value_name = "N|X,Y", conflicts_with = "dir")]
    face: Option<Choice>,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl EnrollArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let people = match (&self.dir, &self.name) {
            (Some(folder), _) => people_of(folder)?,
            (None, Some(name)) => vec![(name.clone(), stills_of(&self.stills)?)],
            (None, None) => return Err(UsageError("give a name and stills, or --dir".into()).into()),
        };
        let people = people
            .into_iter()
            .map(|(name, stills)| Ok((PersonName::new(&name)?, stills)))
            .collect::<Result<Vec<_>>>()?;
        let detector = self.detection.detector(&self.device.open_and_tell()?)?;
        // --from goes with one name.
        let mut of_tracks = Some(faces::of_tracks(&self.from, self.video.as_deref())?);
        let mut examined = Vec::new();
        let mut refused = 0;
        for (name, stills) in people {
            let mut good = Vec::new();
            for still in stills {
                match faces::of_still(&still, self.face.unwrap_or_default(), &detector) {
                    Ok(new) => {
                        report(&name, &still, &new);
                        good.push(new);
                    }
                    Err(error) => {
                        refused += 1;
                        eprintln!("{name}: {} is not used: {error:#}", still.display());
                    }
                }
            }
            good.extend(of_tracks.take().into_iter().flatten());
            if !good.is_empty() {
                examined.push((name, good));
            }
        }
        if examined.is_empty() {
            bail!("nobody was enrolled: none of {refused} stills could be used");
        }
        let gallery = Gallery::create(&self.gallery)?;
        for (name, stills) in examined {
            let done = gallery.enroll(&name, stills)?;
            let (added, all) = (done.added, done.person.stills.len());
            println!("{name}: {added} new still{}, {all} in all", if added == 1 { "" } else { "s" });
        }
        Ok(())
    }
}

/// What there is to know about a still that was taken.
fn report(name: &PersonName, path: &Path, still: &NewStill) {
    if still.examined.faces.len() > 1 {
        println!(
            "{name}: {} shows several faces, number {} was taken: {}; choose another with --face",
            path.display(),
            still.examined.number,
            still.examined.places()
        );
    }
    for problem in still.examined.problems() {
        println!("{name}: {}: {problem}", path.display());
    }
}

/// The stills named, and those in the folders named.
fn stills_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut stills = Vec::new();
    for path in paths {
        if path.is_dir() {
            stills.extend(entries(path)?.into_iter().filter(|entry| entry.is_file()));
        } else {
            stills.push(path.clone());
        }
    }
    Ok(stills)
}

/// A sub-folder or a still a person, in the order of their names.
fn people_of(folder: &Path) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let mut people = Vec::new();
    for entry in entries(folder)? {
        if entry.is_dir() {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            people.push((name, stills_of(&[entry])?));
        } else {
            let name = entry.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            people.push((name, vec![entry]));
        }
    }
    if people.is_empty() {
        bail!(
            "{} holds nobody: put a folder of stills a person, or a still a person, into it",
            folder.display()
        );
    }
    Ok(people)
}

/// What lies in a folder, by name; hidden files do not count.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().with_context(|| format!("{} cannot be read", folder.display()))?;
    paths.retain(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}
