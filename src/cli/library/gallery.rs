//! The shared gallery of all workers of a library.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{LibraryPlace, refused};
use sphereface::file::counted;

/// Share one gallery with all workers, in the database
///
/// Workers without --gallery use it, hold a copy, and check for changes before every file. A gallery folder
/// and the shared gallery have the same content: `put` and `get` convert in both directions without loss.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library gallery put family\n  \
    sphereface library gallery get copy && sphereface enroll Ada new.jpg --gallery copy && sphereface library gallery put copy")]
pub struct GalleryArgs {
    #[command(subcommand)]
    command: GalleryCommand,
}

#[derive(Debug, Subcommand)]
enum GalleryCommand {
    /// Make the shared gallery equal to a folder
    Put {
        /// Folder of a gallery
        folder: PathBuf,
        /// Replace the shared gallery even if the folder is not a copy of its current state
        #[arg(long)]
        replace: bool,
    },
    /// Copy the shared gallery into a folder, or bring a copy up to date
    Get {
        /// A new folder, or an earlier copy
        folder: PathBuf,
    },
    /// Show whether there is a shared gallery, and its size
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl GalleryArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        match self.command {
            GalleryCommand::Put { folder, replace } => {
                let library = place.create()?;
                let change = library.put_gallery(&folder, replace).map_err(refused)?;
                outln!("the shared gallery is {} now (change {change})", folder.display());
            }
            GalleryCommand::Get { folder } => {
                let change = place.open()?.get_gallery(&folder).map_err(refused)?;
                outln!("{} is the shared gallery now (change {change})", folder.display());
            }
            GalleryCommand::Show { json } => {
                let library = place.open()?;
                let change = library.gallery_change().map_err(refused)?;
                let (files, bytes) = library.gallery_size().map_err(refused)?;
                if json {
                    outln!("{}", json!({ "change": change, "files": files, "bytes": bytes }));
                } else if change == 0 {
                    outln!("the library has no shared gallery");
                } else {
                    outln!("change {change}: {}, {:.1} MB", counted(files, "file"), bytes as f64 / 1e6);
                }
            }
        }
        Ok(())
    }
}
