//! Forgetting people and files.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use super::database::{on_connection, on_pool};
use super::find::Subject;
use super::{Library, LibraryError, analysis_name, note, told, tracks_changed};

/// Result of [`Library::forget`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forgotten {
    /// Files with the person.
    pub files: usize,
    /// Tracks removed, with their embeddings and pictures.
    pub tracks: usize,
}

impl Library {
    /// Removes all data about a person: tracks, embeddings and pictures, in the catalogue and in the
    /// analyses. Analysing the same files again does not restore them. Stills in a gallery are not touched.
    ///
    /// # Errors
    /// When there is no person of that name or number, the name cannot be one, or something cannot be written. The
    /// call can then be repeated.
    pub fn forget(&self, who: &Subject) -> Result<Forgotten, LibraryError> {
        let who = &who.normalised()?;
        let (statement, name, number) = match who {
            Subject::Named(name) => (
                "SELECT content, track FROM track WHERE name = $1 AND $2 = $2 ORDER BY 1, 2",
                name.as_str(),
                0,
            ),
            Subject::Stranger(number) => (
                "SELECT content, track FROM track WHERE name = '' AND stranger = $2 AND $1 = $1 ORDER BY 1, 2",
                "",
                *number,
            ),
        };
        let rows: Vec<(String, i64)> = self.wait(async {
            on_pool!(&self.database, pool => sqlx::query_as(statement).bind(name).bind(number).fetch_all(pool).await)
        })?;
        if rows.is_empty() {
            return Err(match who {
                Subject::Named(name) => LibraryError::NoPerson(name.clone()),
                Subject::Stranger(number) => LibraryError::NoStranger(*number),
            });
        }
        let mut files: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for (content, track) in rows {
            files.entry(content).or_default().insert(track);
        }
        let mut forgotten = Forgotten::default();
        for (content, tracks) in &files {
            // The analysis first: if this fails, the catalogue still has the tracks to be forgotten.
            let name = analysis_name(content);
            if let Some(mut analysis) = self.analyses.read(&name)? {
                analysis.observations.retain(|one| !tracks.contains(&i64::from(one.track.0)));
                self.analyses.write(&name, &analysis)?;
            }
            self.wait(async {
                let mut transaction = self.database.begin().await?;
                for track in tracks {
                    let key = (content.clone(), *track);
                    told::tell(&mut transaction, &key, told::Kind::Forgotten, (0, 0), "").await?;
                    for statement in [
                        "DELETE FROM track WHERE content = $1 AND track = $2",
                        "DELETE FROM template WHERE content = $1 AND track = $2",
                        "DELETE FROM picture WHERE content = $1 AND track = $2",
                        "DELETE FROM told WHERE content = $1 AND track = $2 AND kind <> 'forgotten'",
                    ] {
                        on_connection!(&mut transaction, c => {
                            sqlx::query(statement).bind(content).bind(*track).execute(c).await.map(drop)
                        })?;
                    }
                }
                tracks_changed(&mut transaction).await?;
                transaction.commit().await
            })?;
            forgotten.files += 1;
            forgotten.tracks += tracks.len();
        }
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            // The name itself must be forgotten, so it is not recorded.
            let what = match who {
                Subject::Named(_) => "a person was forgotten".to_owned(),
                Subject::Stranger(number) => format!("stranger {number} was forgotten"),
            };
            note(&mut transaction, &what).await?;
            transaction.commit().await
        })?;
        Ok(forgotten)
    }

    /// Removes a file, or every file below a folder, from the library with all its results. The file itself
    /// is not touched, and is new if it is added again. If there is a copy elsewhere, the results are kept.
    ///
    /// # Errors
    /// [`LibraryError::NoFile`] if there is none at `path`; when something cannot be written.
    pub fn forget_files(&self, path: &Path) -> Result<usize, LibraryError> {
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let text = whole.to_str().ok_or_else(|| LibraryError::Path(path.to_owned()))?;
        let rows: Vec<(String, String)> = self.wait(async {
            on_pool!(&self.database, pool => sqlx::query_as("SELECT path, content FROM place").fetch_all(pool).await)
        })?;
        let below =
            |place: &str| place == text || place.strip_prefix(text).is_some_and(|rest| rest.starts_with('/'));
        let leaving: Vec<&(String, String)> = rows.iter().filter(|(place, _)| below(place)).collect();
        if leaving.is_empty() {
            return Err(LibraryError::NoFile(path.display().to_string()));
        }
        let stays: BTreeSet<&str> =
            rows.iter().filter(|(place, _)| !below(place)).map(|(_, content)| content.as_str()).collect();
        let mut gone = 0;
        for (place, content) in leaving {
            let last = !stays.contains(content.as_str());
            self.wait(async {
                let mut transaction = self.database.begin().await?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("DELETE FROM place WHERE path = $1").bind(place).execute(c).await.map(drop)
                })?;
                if last {
                    for statement in [
                        "DELETE FROM track WHERE content = $1",
                        "DELETE FROM template WHERE content = $1",
                        "DELETE FROM picture WHERE content = $1",
                        "DELETE FROM told WHERE content = $1",
                        "DELETE FROM grouped WHERE content = $1",
                        "DELETE FROM part WHERE content = $1",
                        "DELETE FROM part_picture WHERE content = $1",
                        "DELETE FROM file WHERE content = $1",
                    ] {
                        on_connection!(&mut transaction, c => {
                            sqlx::query(statement).bind(content).execute(c).await.map(drop)
                        })?;
                    }
                    tracks_changed(&mut transaction).await?;
                }
                transaction.commit().await
            })?;
            if last {
                gone += 1;
                self.analyses.remove(&analysis_name(content))?;
            }
        }
        Ok(gone)
    }
}
