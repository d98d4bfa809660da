//! Synthetic libraries, for benchmarks.

use std::ops::Range;

use super::database::on_connection;
use super::group::{Tracks, group};
use super::work::bytes;
use super::{Library, LibraryError, tracks_changed};

/// Rows entered per transaction.
const BATCH: usize = 20_000;

/// The group of each of these unit vectors of `length` values.
pub(crate) fn group_vectors(vectors: &[f32], length: usize, cosine: f64, threads: usize) -> Vec<usize> {
    group(&Tracks { vectors, length, apart: &[], same: &[] }, cosine, threads)
}

impl Library {
    /// Enters videos of `per_file` appearances each. `one` returns the name of an appearance, or the template
    /// of one without a name.
    pub(crate) fn fill(
        &self,
        files: Range<usize>,
        per_file: usize,
        one: &mut dyn FnMut(usize) -> (String, Vec<f32>),
    ) -> Result<(), LibraryError> {
        let content = |file: usize| blake3::hash(&file.to_le_bytes()).to_hex().to_string();
        for batch in files.collect::<Vec<_>>().chunks((BATCH / per_file.max(1)).max(1)) {
            self.wait(async {
                let mut transaction = self.database.begin().await?;
                for &file in batch {
                    let content = content(file);
                    let content = content.as_str();
                    on_connection!(&mut transaction, c => {
                        let statement = "INSERT INTO file (content, bytes, kind, taken_s, state, error, priority, added_s, done_s, \
                                         work_ms, frames, duration_ns, width, height, model, names) VALUES \
                                         ($1, 1, 'video', $2, 'done', '', 0, 0, 0, 0, 0, 600000000000, 0, 0, '', '')";
                        sqlx::query(statement).bind(content).bind(file as i64 * 3600).execute(c).await.map(drop)
                    })?;
                    on_connection!(&mut transaction, c => {
                        let statement = "INSERT INTO place (path, content, bytes, modified_ns, present) VALUES ($1, $2, 1, 0, 1)";
                        sqlx::query(statement).bind(format!("/videos/{file}.mp4")).bind(content).execute(c).await.map(drop)
                    })?;
                    for track in 0..per_file {
                        let start_ns = track as i64 * 6_000_000_000;
                        let (name, template) = one(file * per_file + track);
                        on_connection!(&mut transaction, c => {
                            let statement = "INSERT INTO track (content, track, start_ns, end_ns, frames, best_frame, views, \
                                             comparable, name, angle_deg, stranger, x1, y1, x2, y2) \
                                             VALUES ($1, $2, $3, $4, 50, 0, 5, 1, $5, 50.0, 0, 0, 0, 9, 9)";
                            let query = sqlx::query(statement).bind(content).bind(track as i64 + 1).bind(start_ns);
                            let query = query.bind(start_ns + 2_000_000_000).bind(&name);
                            query.execute(c).await.map(drop)
                        })?;
                        if name.is_empty() {
                            on_connection!(&mut transaction, c => {
                                let statement = "INSERT INTO template (content, track, vector) VALUES ($1, $2, $3)";
                                let query = sqlx::query(statement).bind(content).bind(track as i64 + 1);
                                query.bind(bytes(&template)).execute(c).await.map(drop)
                            })?;
                        }
                    }
                }
                tracks_changed(&mut transaction).await?;
                transaction.commit().await
            })?;
        }
        Ok(())
    }
}
