//! `sphereface gallery`: who is enrolled.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::gallery::{Gallery, Person, PersonName};

/// See and change who is enrolled
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface gallery list\n  \
    sphereface gallery show \"Ada Lovelace\" --json\n  \
    sphereface gallery remove \"Ada Lovelace\" --gallery staff")]
pub struct GalleryArgs {
    #[command(subcommand)]
    command: GalleryCommand,
}

#[derive(Debug, Subcommand)]
enum GalleryCommand {
    /// Everybody, with the number of their stills
    List(Place),
    /// One person and their stills
    Show(Named),
    /// Remove a person with their stills
    Remove(Named),
}

#[derive(Debug, Args)]
struct Place {
    /// Where the people are kept
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
    place: Place,
}

impl GalleryArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            GalleryCommand::List(place) => {
                let people = Gallery::open(&place.gallery)?.people()?;
                if place.json {
                    println!("{}", json!(people.iter().map(describe).collect::<Vec<_>>()));
                } else {
                    people.iter().for_each(|p| println!("{}: {} stills", p.name, p.stills.len()));
                }
            }
            GalleryCommand::Show(Named { name, place }) => {
                let person = Gallery::open(&place.gallery)?.person(&PersonName::new(&name)?)?;
                show(&person, place.json);
            }
            GalleryCommand::Remove(Named { name, place }) => {
                let person = Gallery::open(&place.gallery)?.remove(&PersonName::new(&name)?)?;
                if place.json {
                    println!("{}", describe(&person));
                } else {
                    println!("{} was removed with {} stills", person.name, person.stills.len());
                }
            }
        }
        Ok(())
    }
}

fn describe(person: &Person) -> serde_json::Value {
    json!({
        "name": person.name.as_str(),
        "folder": person.folder,
        "stills": person.stills,
        "missing": person.missing,
    })
}

fn show(person: &Person, as_json: bool) {
    if as_json {
        println!("{}", describe(person));
        return;
    }
    println!("{} in {}", person.name, person.folder.display());
    for still in &person.stills {
        let problems: Vec<String> = still.quality.verdict().iter().map(ToString::to_string).collect();
        let problems = if problems.is_empty() { "good".into() } else { problems.join("; ") };
        println!("  {}: face {:.0} pixels high, {problems}", still.file, still.face.bbox.height());
    }
    person.missing.iter().for_each(|file| println!("  {file}: the file is gone and no longer counts"));
}
