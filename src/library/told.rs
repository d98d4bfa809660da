//! The user's statements about tracks: a name, that some are one person or two, that a person is to be
//! forgotten.
//!
//! The numbers of tracks change when a file is analysed with another network or other settings. So a
//! statement is stored with a position, the face in its best view, by which the track is found again.

use super::database::{Transaction, on_connection};
use crate::analysis::Analysis;
use crate::detect::BBox;

/// Least overlap of two boxes of one face: intersection over union.
const SAME_FACE: f32 = 0.3;

/// A track: the content of its file and its number there.
pub(super) type Key = (String, i64);

/// The kind of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The name of the track.
    Name,
    /// Tracks with the same number are one person.
    Same,
    /// Tracks with the same number are two people, by their side.
    Apart,
    /// The track is to be omitted.
    Forgotten,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Same => "same",
            Self::Apart => "apart",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Stores a statement about a track of the catalogue. `number`, `side` and `name` are 0 or empty if they do
/// not apply.
pub(super) async fn tell(
    transaction: &mut Transaction,
    (content, track): &Key,
    kind: Kind,
    (number, side): (i64, i64),
    name: &str,
) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "INSERT INTO told (content, track, kind, number, side, name, frame, x1, y1, x2, y2) \
                         SELECT content, track, CAST($3 AS TEXT), CAST($4 AS BIGINT), CAST($5 AS BIGINT), CAST($6 AS TEXT), \
                         best_frame, x1, y1, x2, y2 FROM track WHERE content = $1 AND track = $2 \
                         ON CONFLICT (content, track, kind, number) DO UPDATE SET side = excluded.side, name = excluded.name";
        let query = sqlx::query(statement).bind(content).bind(*track).bind(kind.name()).bind(number);
        query.bind(side).bind(name).execute(c).await.map(drop)
    })
}

/// Removes a statement about a track under a number.
pub(super) async fn take_back(
    transaction: &mut Transaction,
    (content, track): &Key,
    kind: Kind,
    number: i64,
) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "DELETE FROM told WHERE content = $1 AND track = $2 AND kind = $3 AND number = $4";
        sqlx::query(statement).bind(content).bind(*track).bind(kind.name()).bind(number).execute(c).await.map(drop)
    })
}

/// A number that no statement of this kind has yet.
pub(super) async fn next_number(transaction: &mut Transaction, kind: Kind) -> Result<i64, sqlx::Error> {
    let row: (i64,) = on_connection!(transaction, c => {
        let statement = "SELECT COALESCE(MAX(number), 0) + 1 FROM told WHERE kind = $1";
        sqlx::query_as(statement).bind(kind.name()).fetch_one(c).await
    })?;
    Ok(row.0)
}

/// Finds the tracks of a file again in a new analysis. A statement about a face that is no longer found has
/// no effect, but is kept: under a number below 0, which no track has.
pub(super) async fn follow(
    transaction: &mut Transaction,
    content: &str,
    analysis: &Analysis,
) -> Result<(), sqlx::Error> {
    type Row = (i64, String, i64, i64, String, i64, f64, f64, f64, f64);
    let rows: Vec<Row> = on_connection!(&mut *transaction, c => {
        let statement = "SELECT track, kind, number, side, name, frame, x1, y1, x2, y2 FROM told WHERE content = $1 \
                         ORDER BY kind, number, track";
        sqlx::query_as(statement).bind(content).fetch_all(c).await
    })?;
    if rows.is_empty() {
        return Ok(());
    }
    on_connection!(&mut *transaction, c => {
        sqlx::query("DELETE FROM told WHERE content = $1").bind(content).execute(c).await.map(drop)
    })?;
    for (track, kind, number, side, name, frame, x1, y1, x2, y2) in rows {
        let bbox = BBox { x1: x1 as f32, y1: y1 as f32, x2: x2 as f32, y2: y2 as f32 };
        let track = track_at(analysis, frame, &bbox).unwrap_or(-track.abs());
        on_connection!(&mut *transaction, c => {
            let statement = "INSERT INTO told (content, track, kind, number, side, name, frame, x1, y1, x2, y2) \
                             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
            let query = sqlx::query(statement).bind(content).bind(track).bind(kind).bind(number).bind(side).bind(name);
            let query = query.bind(frame).bind(x1).bind(y1).bind(x2).bind(y2);
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// The track whose face is at a place in a frame.
fn track_at(analysis: &Analysis, frame: i64, bbox: &BBox) -> Option<i64> {
    let there = analysis.observations.iter().filter(|one| one.frame as i64 == frame);
    let overlaps = there.map(|one| (one.face.bbox.iou(bbox), i64::from(one.track.0)));
    let best = overlaps.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SAME_FACE).then_some(best.1)
}
