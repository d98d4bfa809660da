//! Stored events.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Store, StoreError, jobs};

/// The most events per answer.
pub const MOST_EVENTS: usize = 1000;

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person came into sight.
    Appeared,
    /// A person in sight was named, immediately or after more views.
    Recognised,
    /// A person in sight has lost their name, because they are someone else.
    Corrected,
    /// A person has been out of sight for a while.
    Left,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Appeared, Self::Recognised, Self::Corrected, Self::Left];

    fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Recognised => "recognised",
            Self::Corrected => "corrected",
            Self::Left => "left",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            format!("`{text}` is not a kind of event: write appeared, recognised, corrected or left")
        })
    }
}

/// The person concerned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An enrolled person, by name.
    Person(String),
    /// A stranger of the store, by number.
    Stranger(i64),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => f.write_str(name),
            Self::Stranger(number) => write!(f, "Unknown {number}"),
        }
    }
}

/// An event to record.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// The kind.
    pub kind: Kind,
    /// The source.
    pub source: String,
    /// The person concerned.
    pub subject: Subject,
    /// The previous identity.
    pub was: Option<Subject>,
    /// The angle to the nearest person of the gallery in degrees, named or not.
    pub angle_deg: Option<f32>,
    /// Degrees by which that angle is below the threshold, if it gave a name.
    pub margin_deg: Option<f32>,
    /// The reason for the name.
    pub why: String,
    /// The best view so far, as JPEG.
    pub picture: Option<Vec<u8>>,
}

/// An event as recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number; later events have larger ones.
    pub id: i64,
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// The same in RFC 3339.
    pub time: String,
    /// The kind.
    pub kind: Kind,
    /// The source that saw it.
    pub source: String,
    /// The name of an enrolled person; `null` for a stranger.
    pub person: Option<String>,
    /// The number of a stranger; `null` for an enrolled person who never was one.
    pub stranger: Option<i64>,
    /// The name to show: the person's, or "Unknown 3".
    pub who: String,
    /// The previous identity.
    pub was: Option<String>,
    /// The angle to the nearest person of the gallery in degrees, named or not.
    pub angle_deg: Option<f32>,
    /// Degrees by which that angle is below the threshold, if it gave a name: the smaller, the more doubtful.
    pub margin_deg: Option<f32>,
    /// Whether a user confirmed the name.
    pub confirmed: bool,
    /// The reason for the name.
    pub why: String,
    /// Address of the picture; `null` if there is none.
    pub picture: Option<String>,
}

/// A query for events.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only events of this person.
    pub person: Option<String>,
    /// Only events of this stranger.
    pub stranger: Option<i64>,
    /// Only events of this source.
    pub source: Option<String>,
    /// Only events of this kind.
    pub kind: Option<Kind>,
    /// Only events at or after this time, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only events before this time, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Only events with smaller numbers than this.
    pub before: Option<i64>,
    /// Only events with larger numbers than this.
    pub after: Option<i64>,
    /// Whether the oldest come first; otherwise the newest.
    pub oldest_first: bool,
    /// Maximum number; 0 for as many as one answer holds.
    pub limit: usize,
}

pub(super) const COLUMNS: &str = "id, time_ms, kind, source, person, stranger, was, angle_deg, why, picture IS NOT NULL, margin_deg, \
                       checked";

impl Store {
    /// Records an event and its undelivered copies for webhooks and the broker, then sends it to all
    /// subscribers.
    ///
    /// # Errors
    /// When SQLite fails; the event is then not sent.
    pub fn record(&self, event: &NewEvent) -> Result<Arc<Event>, StoreError> {
        let (person, stranger) = match &event.subject {
            Subject::Person(name) => (Some(name.clone()), None),
            Subject::Stranger(number) => (None, Some(*number)),
        };
        let mut sql = self.sql();
        let mut insert = || -> rusqlite::Result<i64> {
            let transaction = sql.transaction()?;
            transaction.execute(
                "INSERT INTO events (time_ms, kind, source, person, stranger, was, angle_deg, why, picture, margin_deg)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    event.time_ms,
                    event.kind.name(),
                    event.source,
                    person,
                    stranger,
                    event.was.as_ref().map(ToString::to_string),
                    event.angle_deg,
                    event.why,
                    event.picture,
                    event.margin_deg,
                ],
            )?;
            let id = transaction.last_insert_rowid();
            self.address(&transaction, id, event.kind, &event.source)?;
            transaction.commit()?;
            Ok(id)
        };
        let id = insert().map_err(|source| self.error(source))?;
        let recorded = Arc::new(Event {
            id,
            time_ms: event.time_ms,
            time: rfc3339(event.time_ms),
            kind: event.kind,
            source: event.source.clone(),
            who: event.subject.to_string(),
            person,
            stranger,
            was: event.was.as_ref().map(ToString::to_string),
            angle_deg: event.angle_deg,
            margin_deg: event.margin_deg,
            confirmed: false,
            why: event.why.clone(),
            picture: event.picture.as_ref().map(|_| picture_of(id)),
        });
        // While the connection is held, so that subscribers receive events in the order of their numbers.
        // Fails if there are no subscribers.
        let _ = self.told.send(Arc::clone(&recorded));
        drop(sql);
        Ok(recorded)
    }

    /// Events, the newest first unless requested otherwise.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        use rusqlite::types::Value;
        let mut conditions = String::from("1");
        let mut values: Vec<Value> = Vec::new();
        let mut with = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.push(value);
                conditions += &format!(" AND {condition} ?{}", values.len());
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::Text);
        let whole = |number: Option<i64>| number.map(Value::Integer);
        with("person =", text(&query.person));
        with("stranger =", whole(query.stranger));
        with("source =", text(&query.source));
        with("kind =", query.kind.map(|kind| Value::Text(kind.name().to_owned())));
        with("time_ms >=", whole(query.since_ms));
        with("time_ms <", whole(query.until_ms));
        with("id <", whole(query.before));
        with("id >", whole(query.after));
        let limit = if query.limit == 0 { MOST_EVENTS } else { query.limit.min(MOST_EVENTS) };
        let order = if query.oldest_first { "ASC" } else { "DESC" };
        let ask =
            format!("SELECT {COLUMNS} FROM events WHERE {conditions} ORDER BY id {order} LIMIT {limit}");
        self.with(|sql| sql.prepare(&ask)?.query_map(params_from_iter(values), read)?.collect())
    }

    /// One event.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn event(&self, id: i64) -> Result<Option<Event>, StoreError> {
        let ask = format!("SELECT {COLUMNS} FROM events WHERE id = ?1");
        self.with(|sql| sql.query_row(&ask, [id], read).optional())
    }

    /// Unconfirmed names with a margin of less than `margin_deg` degrees, the newest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn doubts(&self, margin_deg: f64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let ask = format!(
            "SELECT {COLUMNS} FROM events WHERE kind = 'recognised' AND person IS NOT NULL AND checked = 0
             AND margin_deg < ?1 AND picture IS NOT NULL ORDER BY id DESC LIMIT ?2"
        );
        let limit = limit.min(MOST_EVENTS) as i64;
        self.with(|sql| sql.prepare(&ask)?.query_map(params![margin_deg, limit], read)?.collect())
    }

    /// Confirms the name of an event.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn confirm_event(&self, id: i64) -> Result<(), StoreError> {
        self.with(|sql| sql.execute("UPDATE events SET checked = 1 WHERE id = ?1", [id]))?;
        Ok(())
    }

    /// Rejects the name of an event: the events of that visit become a stranger's. Their pictures become
    /// `covered`, if strangers must not be visible.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn reject_event(
        &self,
        event: &Event,
        stranger: i64,
        covered: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let Event { id, source, person: Some(person), .. } = event else { return Ok(()) };
        let gone = covered.is_some();
        let left = "SELECT {} FROM events WHERE source = ?1 AND person = ?2 AND kind = 'left' AND id {} ?3";
        let ask = |what: &str, than: &str| left.replacen("{}", what, 1).replacen("{}", than, 1);
        self.change(|sql| {
            let of = params![source, person, id];
            let after: Option<i64> = sql.query_row(&ask("MAX(id)", "<"), of, |row| row.get(0))?;
            let until: Option<i64> = sql.query_row(&ask("MIN(id)", ">="), of, |row| row.get(0))?;
            sql.execute(
                "UPDATE events SET person = NULL, stranger = ?1, margin_deg = NULL,
                     picture = CASE WHEN picture IS NULL OR ?6 IS NULL THEN picture ELSE ?6 END
                 WHERE source = ?2 AND person = ?3 AND id > ?4 AND id <= ?5",
                params![stranger, source, person, after.unwrap_or(0), until.unwrap_or(i64::MAX), covered],
            )
        })?;
        if gone {
            self.empty_log()?;
        }
        Ok(())
    }

    /// The angles at which people were named, in degrees.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn angles_of_named(&self) -> Result<Vec<f64>, StoreError> {
        let ask = "SELECT angle_deg FROM events WHERE kind = 'recognised' AND person IS NOT NULL
                   AND angle_deg IS NOT NULL ORDER BY angle_deg";
        self.with(|sql| sql.prepare(ask)?.query_map([], |row| row.get(0))?.collect())
    }

    /// The picture of an event, as JPEG.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn event_picture(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let ask = "SELECT picture FROM events WHERE id = ?1";
        self.with(|sql| Ok(sql.query_row(ask, [id], |row| row.get(0)).optional()?.flatten()))
    }

    /// The number of the last event; 0 before the first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn last_event(&self) -> Result<i64, StoreError> {
        self.with(|sql| sql.query_row("SELECT COALESCE(MAX(id), 0) FROM events", [], |row| row.get(0)))
    }

    /// The number of events, and the number of sources that named each person.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn tally(&self) -> Result<(u64, BTreeMap<String, usize>), StoreError> {
        let ask = "SELECT person, COUNT(DISTINCT source) FROM events
                   WHERE kind = 'recognised' AND person IS NOT NULL GROUP BY person";
        self.with(|sql| {
            let count: i64 = sql.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize));
            let named = sql.prepare(ask)?.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
            Ok((count.unsigned_abs(), named))
        })
    }

    /// Deletes all events of a person, with their pictures. Returns their number.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn forget_person(&self, name: &str) -> Result<usize, StoreError> {
        let was = "UPDATE events SET was = NULL WHERE was = ?1";
        let gone = self.change(|sql| {
            sql.execute(was, [name])?;
            sql.execute("UPDATE changes SET about = NULL WHERE about = ?1", [name])?;
            sql.execute("DELETE FROM events WHERE person = ?1", [name])
        })?;
        self.empty_log()?;
        Ok(gone)
    }

    /// Gives the events of a person another name. Jobs keep the name that their results use, and are found
    /// by both.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn rename_person(&self, from: &str, to: &str) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        self.change(|sql| {
            jobs::rename_person(sql, from, to)?;
            sql.execute("UPDATE events SET person = ?2 WHERE person = ?1", [from, to])?;
            sql.execute("UPDATE changes SET about = ?2 WHERE about = ?1", [from, to])?;
            sql.execute("UPDATE events SET was = ?2 WHERE was = ?1", [from, to])
        })?;
        Ok(())
    }
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let (id, time_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
    let (person, stranger): (Option<String>, Option<i64>) = (row.get(4)?, row.get(5)?);
    let kind: String = row.get(2)?;
    let with_picture: bool = row.get(9)?;
    let who = match (&person, stranger) {
        (Some(name), _) => name.clone(),
        (None, number) => Subject::Stranger(number.unwrap_or_default()).to_string(),
    };
    Ok(Event {
        id,
        time_ms,
        time: rfc3339(time_ms),
        kind: kind.parse().map_err(|_| rusqlite::Error::InvalidQuery)?,
        source: row.get(3)?,
        person,
        stranger,
        who,
        was: row.get(6)?,
        angle_deg: row.get(7)?,
        margin_deg: row.get(10)?,
        confirmed: row.get(11)?,
        why: row.get(8)?,
        picture: with_picture.then(|| picture_of(id)),
    })
}

fn picture_of(id: i64) -> String {
    format!("/api/v1/events/{id}/picture")
}

/// A time in UTC in the format of RFC 3339.
pub(in crate::serve) fn rfc3339(time_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
