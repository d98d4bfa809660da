//! Names of tracks: the decisions about an analysis, stored in the catalogue.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::database::{Transaction, on_connection, on_pool};
use super::{Library, LibraryError, analysis_name, tracks_changed};
use crate::analysis::{Analysis, AnalysisError};
use crate::engine::{Engine, EngineError, Gallery, GalleryOptions, Known};
use crate::gallery::Templates;
use crate::identify::{Decision, Threshold, decide};

/// The people to name in a library: a snapshot of a gallery, and its digest.
#[derive(Debug, Clone)]
pub struct Names {
    gallery: Option<Gallery>,
    digest: String,
    same_deg: Option<f64>,
}

/// Result of [`Library::name_all`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renamed {
    /// Files whose names were decided again.
    pub files: usize,
    /// Tracks whose name changed.
    pub tracks: usize,
}

impl Names {
    /// The people of the gallery in a folder. Without a gallery, or with an empty one, every person is a
    /// stranger.
    ///
    /// # Errors
    /// When the gallery cannot be read, or the threshold is invalid for the model.
    pub fn of_gallery(
        engine: &Engine,
        folder: Option<&Path>,
        options: &GalleryOptions,
    ) -> Result<Self, EngineError> {
        let same_deg = engine.same_person_deg();
        let nobody = Self { gallery: None, digest: digest(engine, None, options), same_deg };
        let Some(folder) = folder else { return Ok(nobody) };
        let exact = engine.gallery_embedder()?;
        let embedder = exact.as_ref().unwrap_or(engine.embedder());
        let known = match Known::load(options.threshold, folder, embedder) {
            Ok(known) => known,
            Err(EngineError::NobodyEnrolled(_)) => return Ok(nobody),
            Err(other) => return Err(other),
        };
        let digest = digest(engine, Some((&known.templates, &known.threshold)), options);
        let gallery = known.gallery(options.margin_deg, engine.threads())?;
        Ok(Self {
            same_deg: same_deg.or(Some(gallery.threshold().angle_deg())),
            gallery: Some(gallery),
            digest,
        })
    }

    /// The people, unless there are none.
    pub fn gallery(&self) -> Option<&Gallery> {
        self.gallery.as_ref()
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// The identities of the tracks of an analysis, as `label` decides them.
    pub(super) fn decide(&self, analysis: &Analysis) -> Result<Vec<Decision>, LibraryError> {
        let identifier = self.gallery.as_ref().map(Gallery::identifier);
        Ok(decide(&analysis.observations, identifier, self.same_deg)?)
    }
}

/// A digest of everything that names depend on.
fn digest(engine: &Engine, known: Option<(&Templates, &Threshold)>, options: &GalleryOptions) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(engine.model().to_string().as_bytes());
    hash.update(&options.margin_deg.to_le_bytes());
    if let Some((templates, threshold)) = known {
        hash.update(&threshold.angle_deg().to_le_bytes());
        hash.update(threshold.to_string().as_bytes());
        for person in &templates.people {
            hash.update(format!("\nperson {}\n", person.name).as_bytes());
            for (kind, list) in [("template", &person.templates), ("rejected", &person.rejected)] {
                for template in list {
                    hash.update(kind.as_bytes());
                    hash.update(template.source.as_bytes());
                    template.embedding.as_slice().iter().for_each(|x| _ = hash.update(&x.to_le_bytes()));
                }
            }
        }
    }
    hash.finalize().to_hex()[..32].to_owned()
}

impl Library {
    /// Decides again about every file whose names were decided with another state of the gallery. No video is
    /// decoded. `progress` is called with the files done and those in all.
    ///
    /// # Errors
    /// When an analysis or the database cannot be read or written.
    pub fn name_all(
        &self,
        names: &Names,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Renamed, LibraryError> {
        let stale: Vec<(String,)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT content FROM file WHERE state = 'done' AND names <> $1 ORDER BY content")
                    .bind(names.digest()).fetch_all(pool).await
            })
        })?;
        let mut renamed = Renamed::default();
        for (number, (content,)) in stale.iter().enumerate() {
            progress(number, stale.len());
            let name = analysis_name(content);
            let analysis = self.analyses.read(&name)?.ok_or_else(|| missing(&self.analyses.path(&name)))?;
            if let (Some(gallery), Some(own)) = (names.gallery(), analysis.model)
                && gallery.model() != own
            {
                let (own, asked) = (own.to_string(), gallery.model().to_string());
                return Err(LibraryError::OtherModel { own, asked });
            }
            let decisions = names.decide(&analysis)?;
            renamed.files += 1;
            renamed.tracks += self.wait(async {
                let mut transaction = self.database.begin().await?;
                let changed = put_names(&mut transaction, content, &decisions).await?;
                set_names_digest(&mut transaction, content, names.digest()).await?;
                if changed > 0 {
                    tracks_changed(&mut transaction).await?;
                }
                transaction.commit().await?;
                Ok(changed)
            })?;
        }
        Ok(renamed)
    }
}

/// The error of a missing analysis.
fn missing(path: &Path) -> LibraryError {
    let source = io::Error::from(ErrorKind::NotFound);
    AnalysisError::Read { path: path.to_owned(), source }.into()
}

async fn set_names_digest(
    transaction: &mut Transaction,
    content: &str,
    digest: &str,
) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        sqlx::query("UPDATE file SET names = $2 WHERE content = $1").bind(content).bind(digest).execute(c).await.map(drop)
    })
}

/// The name and the angle to the nearest person in a decision.
pub(super) fn name_of(decision: &Decision) -> (&str, f64) {
    let angle = decision.nearest.as_ref().map_or(0.0, |nearest| f64::from(nearest.angle_deg));
    (decision.who.name().unwrap_or_default(), angle)
}

/// Stores the names of the tracks of a file. Names that the user stated are kept. Returns the number of
/// changed tracks.
async fn put_names(
    transaction: &mut Transaction,
    content: &str,
    decisions: &[Decision],
) -> Result<usize, sqlx::Error> {
    let mut changed = 0;
    for decision in decisions {
        let (name, angle_deg) = name_of(decision);
        let track = i64::from(decision.track.0);
        let statement = "UPDATE track SET name = COALESCE((SELECT told.name FROM told \
                         WHERE told.content = $1 AND told.track = $2 AND kind = 'name'), $3) \
                         WHERE content = $1 AND track = $2 AND name <> COALESCE((SELECT told.name FROM told \
                         WHERE told.content = $1 AND told.track = $2 AND kind = 'name'), $3)";
        let done = on_connection!(&mut *transaction, c => {
            let query = sqlx::query(statement).bind(content).bind(track).bind(name);
            query.execute(c).await.map(|done| done.rows_affected())
        })?;
        changed += done as usize;
        // An angle may change without the name.
        on_connection!(&mut *transaction, c => {
            let statement = "UPDATE track SET angle_deg = $3 WHERE content = $1 AND track = $2 AND angle_deg <> $3";
            sqlx::query(statement).bind(content).bind(track).bind(angle_deg).execute(c).await.map(drop)
        })?;
    }
    Ok(changed)
}
