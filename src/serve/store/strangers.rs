//! Stored strangers: people without a name.

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::events::rfc3339;
use super::{Store, StoreError, lock};
use crate::embed::Embedding;
use crate::models::ModelId;

/// A stranger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stranger {
    /// Their number: "Unknown 3".
    pub id: i64,
    /// Time at which they were first seen (RFC 3339).
    pub first: String,
    /// Time at which they were last seen.
    pub last: String,
    /// The same in milliseconds since 1970.
    pub last_ms: i64,
    /// Number of visits.
    pub visits: i64,
    /// Source that saw them last.
    pub last_source: String,
    /// Address of their best picture.
    pub picture: String,
}

/// A view of a stranger.
#[derive(Debug, Clone)]
pub struct NewSight {
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// The source.
    pub source: String,
    /// Weight of the view, 0 to 1.
    pub weight: f32,
    /// Its embedding, if it shows enough to recognise the person again.
    pub embedding: Option<Embedding>,
    /// The face with its surroundings.
    pub picture: StrangerPicture,
}

/// The face of a stranger with its surroundings.
#[derive(Debug, Clone, PartialEq)]
pub struct StrangerPicture {
    /// As JPEG.
    pub jpeg: Vec<u8>,
    /// A point on the face, in pixels.
    pub face: [f32; 2],
}

const COLUMNS: &str = "id, first_ms, last_ms, visits, last_source";

impl Store {
    /// The stranger nearest to an embedding, if nearer than `same_deg` degrees; not one of `others`, who are
    /// in the same picture.
    pub fn stranger_like(&self, embedding: &Embedding, same_deg: f64, others: &[i64]) -> Option<i64> {
        let known = lock(&self.known);
        let near = known.iter().filter(|(id, _)| !others.contains(id)).filter_map(|(id, other)| {
            let angle_deg = other.angle_deg(embedding).filter(|angle_deg| *angle_deg < same_deg)?;
            Some((angle_deg, *id))
        });
        near.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, id)| id)
    }

    /// Adds a stranger.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn add_stranger(&self, sight: &NewSight) -> Result<i64, StoreError> {
        let id = self.with(|sql| {
            let mut insert = sql.prepare(
                "INSERT INTO strangers
                 (first_ms, last_ms, visits, last_source, weight, model, embedding, picture, face_x, face_y)
                 VALUES (?1, ?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            insert.insert(params![
                sight.time_ms,
                sight.source,
                sight.weight,
                sight.embedding.as_ref().map(|embedding| embedding.model().to_string()),
                sight.embedding.as_ref().map(bytes_of),
                sight.picture.jpeg,
                sight.picture.face[0],
                sight.picture.face[1],
            ])
        })?;
        if let Some(embedding) = &sight.embedding {
            lock(&self.known).push((id, embedding.clone()));
        }
        Ok(id)
    }

    /// Records another visit of a stranger.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn stranger_came(&self, id: i64, source: &str, time_ms: i64) -> Result<(), StoreError> {
        let update = "UPDATE strangers SET visits = visits + 1, last_source = ?2, last_ms = ?3 WHERE id = ?1";
        self.with(|sql| sql.execute(update, params![id, source, time_ms]))?;
        Ok(())
    }

    /// Records a view of a stranger. Picture and embedding are stored if they are better than those before.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn see_stranger(&self, id: i64, sight: &NewSight) -> Result<(), StoreError> {
        let better = self.change(|sql| {
            sql.execute("UPDATE strangers SET last_ms = ?2 WHERE id = ?1", params![id, sight.time_ms])?;
            let update =
                "UPDATE strangers SET weight = ?2, model = ?3, embedding = ?4, picture = ?5, face_x = ?6,
                          face_y = ?7 WHERE id = ?1 AND weight < ?2";
            let embedding = sight.embedding.as_ref();
            let [x, y] = sight.picture.face;
            let model = embedding.map(|embedding| embedding.model().to_string());
            let bytes = embedding.map(bytes_of);
            match embedding {
                Some(_) => {
                    sql.execute(update, params![id, sight.weight, model, bytes, sight.picture.jpeg, x, y])
                }
                None => Ok(0),
            }
        })?;
        if better > 0
            && let Some(embedding) = &sight.embedding
        {
            let mut known = lock(&self.known);
            known.retain(|(other, _)| *other != id);
            known.push((id, embedding.clone()));
        }
        Ok(())
    }

    /// Merges two strangers, with the better view of both. Returns whether there were two.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn merge_strangers(&self, from: i64, into: i64) -> Result<bool, StoreError> {
        if from == into || self.stranger(from)?.is_none() || self.stranger(into)?.is_none() {
            return Ok(false);
        }
        self.change(|sql| {
            sql.execute("UPDATE events SET stranger = ?2 WHERE stranger = ?1", [from, into])?;
            sql.execute(
                "UPDATE strangers SET (weight, model, embedding, picture, face_x, face_y) =
                     (SELECT weight, model, embedding, picture, face_x, face_y FROM strangers WHERE id = ?1)
                 WHERE id = ?2 AND weight < (SELECT weight FROM strangers WHERE id = ?1 AND embedding IS NOT NULL)",
                [from, into],
            )?;
            sql.execute(
                "UPDATE strangers SET visits = visits + other.more, first_ms = MIN(first_ms, other.first),
                     last_source = CASE WHEN other.last > last_ms THEN other.place ELSE last_source END,
                     last_ms = MAX(last_ms, other.last)
                 FROM (SELECT visits AS more, first_ms AS first, last_ms AS last, last_source AS place
                       FROM strangers WHERE id = ?1) AS other WHERE id = ?2",
                [from, into],
            )?;
            sql.execute("DELETE FROM strangers WHERE id = ?1", [from])
        })?;
        {
            let mut merged = lock(&self.merged);
            merged.values_mut().filter(|to| **to == from).for_each(|to| *to = into);
            merged.insert(from, into);
        }
        self.remember_strangers()?;
        self.empty_log()?;
        Ok(true)
    }

    /// The stranger into which that one was merged, since the store was opened.
    pub fn resolve(&self, id: i64) -> i64 {
        lock(&self.merged).get(&id).copied().unwrap_or(id)
    }

    /// Marks a stranger as not a person: events and picture are deleted, and similar detections cause no
    /// events. Returns whether there was one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn ignore_stranger(&self, id: i64) -> Result<bool, StoreError> {
        let ignored = self.change(|sql| {
            sql.execute("DELETE FROM events WHERE stranger = ?1 AND person IS NULL", [id])?;
            sql.execute("UPDATE strangers SET ignored = 1, picture = x'' WHERE id = ?1 AND ignored = 0", [id])
        })?;
        self.empty_log()?;
        Ok(ignored > 0)
    }

    /// Whether a stranger is marked as not a person.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn is_ignored(&self, id: i64) -> Result<bool, StoreError> {
        let ask = "SELECT ignored FROM strangers WHERE id = ?1";
        self.with(|sql| Ok(sql.query_row(ask, [id], |row| row.get(0)).optional()?.unwrap_or(false)))
    }

    /// The best views of all strangers.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn stranger_embeddings(&self) -> Result<Vec<Embedding>, StoreError> {
        let ids: Vec<i64> = self.with(|sql| {
            sql.prepare("SELECT id FROM strangers WHERE ignored = 0")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let known = lock(&self.known);
        Ok(known.iter().filter(|(id, _)| ids.contains(id)).map(|(_, embedding)| embedding.clone()).collect())
    }

    /// Strangers, those seen last first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn strangers(&self) -> Result<Vec<Stranger>, StoreError> {
        let ask = format!("SELECT {COLUMNS} FROM strangers WHERE ignored = 0 ORDER BY last_ms DESC, id DESC");
        self.with(|sql| sql.prepare(&ask)?.query_map([], read)?.collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn stranger(&self, id: i64) -> Result<Option<Stranger>, StoreError> {
        let ask = format!("SELECT {COLUMNS} FROM strangers WHERE id = ?1 AND ignored = 0");
        self.with(|sql| sql.query_row(&ask, [id], read).optional())
    }

    /// The best picture of a stranger.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn stranger_picture(&self, id: i64) -> Result<Option<StrangerPicture>, StoreError> {
        let ask = "SELECT picture, face_x, face_y FROM strangers WHERE id = ?1 AND ignored = 0";
        let read =
            |row: &Row<'_>| Ok(StrangerPicture { jpeg: row.get(0)?, face: [row.get(1)?, row.get(2)?] });
        self.with(|sql| sql.query_row(ask, [id], read).optional())
    }

    /// Names a stranger: their events become that person's, and the stranger is removed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn stranger_is(&self, id: i64, name: &str) -> Result<(), StoreError> {
        self.change(|sql| {
            sql.execute("UPDATE events SET person = ?2 WHERE stranger = ?1", params![id, name])?;
            sql.execute("DELETE FROM strangers WHERE id = ?1", [id])
        })?;
        lock(&self.known).retain(|(other, _)| *other != id);
        self.empty_log()
    }

    /// Deletes a stranger with all their events and pictures. Returns whether there was one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn forget_stranger(&self, id: i64) -> Result<bool, StoreError> {
        let gone = self.change(|sql| {
            sql.execute("DELETE FROM events WHERE stranger = ?1 AND person IS NULL", [id])?;
            sql.execute("DELETE FROM strangers WHERE id = ?1", [id])
        })?;
        lock(&self.known).retain(|(other, _)| *other != id);
        self.empty_log()?;
        Ok(gone > 0)
    }

    /// Reads the embeddings of all strangers.
    pub(super) fn remember_strangers(&self) -> Result<(), StoreError> {
        let all: Vec<(i64, String, Vec<u8>)> = self.with(|sql| {
            let mut ask =
                sql.prepare("SELECT id, model, embedding FROM strangers WHERE embedding IS NOT NULL")?;
            ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })?;
        let known = all.into_iter().filter_map(|(id, model, bytes)| Some((id, embedding(&model, &bytes)?)));
        *lock(&self.known) = known.collect();
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Stranger> {
    let (id, first_ms, last_ms): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Stranger {
        id,
        first: rfc3339(first_ms),
        last: rfc3339(last_ms),
        last_ms,
        visits: row.get(3)?,
        last_source: row.get(4)?,
        picture: format!("/api/v1/strangers/{id}/picture"),
    })
}

fn bytes_of(embedding: &Embedding) -> Vec<u8> {
    embedding.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An invalid embedding is ignored.
fn embedding(model: &str, bytes: &[u8]) -> Option<Embedding> {
    let model: ModelId = model.parse().ok()?;
    let values = bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    Embedding::new(model, values.collect())
}
