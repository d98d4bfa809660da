//! Stored jobs: videos to label.

use std::fmt;

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Store, StoreError};
use crate::serve::now_ms;

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for other jobs.
    Waiting,
    /// It is running.
    Running,
    /// The results are ready.
    Done,
    /// There are no results.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job has ended.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A video to label.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The file; `None` for an upload.
    pub input: Option<String>,
    /// Its state.
    pub state: JobState,
    /// Why it failed, or a limitation of the results.
    pub reason: Option<String>,
    /// Time of the request, in milliseconds since 1970.
    pub made_ms: i64,
    /// Time at which it ended.
    pub ended_ms: Option<i64>,
    /// Number of starts.
    pub attempts: u32,
    /// The people seen, once it is done.
    pub people: Vec<String>,
}

const COLUMNS: &str = "id, name, input, state, reason, made_ms, ended_ms, attempts, people";

impl Store {
    /// Adds a waiting job, after `place` has stored its files.
    ///
    /// # Errors
    /// When SQLite fails; the inner error is that of `place`.
    pub fn add_job(
        &self,
        name: &str,
        input: Option<&str>,
        place: impl FnOnce(i64) -> std::io::Result<()>,
    ) -> Result<std::io::Result<i64>, StoreError> {
        let insert = "INSERT INTO jobs (name, input, state, made_ms, attempts, people) VALUES (?1, ?2, 'waiting', ?3, 0, '[]')";
        let mut sql = self.sql();
        let all = || -> rusqlite::Result<std::io::Result<i64>> {
            let transaction = sql.transaction()?;
            let id = transaction.prepare(insert)?.insert(params![name, input, now_ms()])?;
            if let Err(error) = place(id) {
                return Ok(Err(error));
            }
            transaction.commit()?;
            Ok(Ok(id))
        };
        let added = { all }();
        added.map_err(|source| self.error(source))
    }

    /// Begins the job that has waited longest; `None` if none waits.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn begin_job(&self) -> Result<Option<Job>, StoreError> {
        let next = format!(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1
             WHERE id = (SELECT MIN(id) FROM jobs WHERE state = 'waiting') RETURNING {COLUMNS}"
        );
        self.with(|sql| sql.query_row(&next, [], read).optional())
    }

    /// Ends a running job; a waiting one can only be cancelled.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn end_job(
        &self,
        id: i64,
        state: JobState,
        reason: Option<&str>,
        people: &[String],
    ) -> Result<(), StoreError> {
        // Serialising a list of texts does not fail.
        let people = serde_json::to_string(people).unwrap_or_default();
        let update = "UPDATE jobs SET state = ?2, reason = ?3, people = ?4, ended_ms = ?5
                      WHERE id = ?1 AND (state = 'running' OR (state = 'waiting' AND ?2 = 'cancelled'))";
        self.with(|sql| sql.execute(update, params![id, state.name(), reason, people, now_ms()]))?;
        Ok(())
    }

    /// Makes jobs that were running when the service ended wait again. Those that were started `most` times
    /// fail with `reason`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn resume_jobs(&self, most: u32, reason: &str) -> Result<(), StoreError> {
        let failed = "UPDATE jobs SET state = 'failed', reason = ?2, ended_ms = ?3 WHERE state = 'running' AND attempts >= ?1";
        self.change(|sql| {
            sql.execute(failed, params![most, reason, now_ms()])?;
            sql.execute("UPDATE jobs SET state = 'waiting' WHERE state = 'running'", [])
        })?;
        Ok(())
    }

    /// Makes a running job wait again, as if it had not begun.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_back_job(&self, id: i64) -> Result<(), StoreError> {
        let update =
            "UPDATE jobs SET state = 'waiting', attempts = attempts - 1 WHERE id = ?1 AND state = 'running'";
        self.with(|sql| sql.execute(update, [id]))?;
        Ok(())
    }

    /// All jobs, the newest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        let ask = format!("SELECT {COLUMNS} FROM jobs ORDER BY id DESC");
        self.with(|sql| sql.prepare(&ask)?.query_map([], read)?.collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn job(&self, id: i64) -> Result<Option<Job>, StoreError> {
        let ask = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
        self.with(|sql| sql.query_row(&ask, [id], read).optional())
    }

    /// Deletes a job.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn remove_job(&self, id: i64) -> Result<(), StoreError> {
        self.with(|sql| sql.execute("DELETE FROM jobs WHERE id = ?1", [id]))?;
        self.empty_log()
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let (state, people): (String, String) = (row.get(3)?, row.get(8)?);
    let state = JobState::ALL.into_iter().find(|one| one.name() == state);
    Ok(Job {
        id: row.get(0)?,
        name: row.get(1)?,
        input: row.get(2)?,
        state: state.ok_or(rusqlite::Error::InvalidQuery)?,
        reason: row.get(4)?,
        made_ms: row.get(5)?,
        ended_ms: row.get(6)?,
        attempts: row.get(7)?,
        people: serde_json::from_str(&people).unwrap_or_default(),
    })
}
