//! Stored jobs: videos to label.

use std::collections::BTreeSet;
use std::fmt;

use rusqlite::{Connection, OptionalExtension, Row, params};
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
    /// The people seen, once it is done, under the names that they had then.
    pub people: Vec<String>,
    /// Later changes of these names, from one to another, the oldest first.
    pub renamed: Vec<(String, String)>,
}

impl Job {
    /// Whether its results show a person of that name, whom they may call by a former one.
    pub fn names(&self, name: &str) -> bool {
        let mut names: BTreeSet<&str> = self.people.iter().map(String::as_str).collect();
        for (from, to) in &self.renamed {
            if names.contains(from.as_str()) {
                names.insert(to);
            }
        }
        names.contains(name)
    }
}

const COLUMNS: &str = "id, name, input, state, reason, made_ms, ended_ms, attempts, people, renamed";

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
        // It is done with the names of now, whatever became of an earlier attempt.
        let next = format!(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, renamed = '[]'
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
        self.change(|sql| match sql.execute(update, params![id, state.name(), reason, people, now_ms()])? {
            0 => Ok(()),
            _ => forget_other_names(sql, id),
        })
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
        let update = "UPDATE jobs SET state = 'waiting', attempts = attempts - 1, renamed = '[]'
                      WHERE id = ?1 AND state = 'running'";
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

/// Records that a person has another name, in the jobs whose results use the old one. Those of a running job
/// may: it began with the gallery of before.
pub(super) fn rename_person(sql: &Connection, from: &str, to: &str) -> rusqlite::Result<()> {
    let ask = format!("SELECT {COLUMNS} FROM jobs WHERE state IN ('running', 'done')");
    let jobs: Vec<Job> = sql.prepare(&ask)?.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
    for mut job in jobs {
        if job.state == JobState::Running || job.names(from) {
            job.renamed.push((from.to_owned(), to.to_owned()));
            set_renamed(sql, &job)?;
        }
    }
    Ok(())
}

/// Removes the names of people whom the results of a job that ended do not show.
fn forget_other_names(sql: &Connection, id: i64) -> rusqlite::Result<()> {
    let ask = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
    let mut job = sql.query_row(&ask, [id], read)?;
    let renamed = std::mem::take(&mut job.renamed);
    // One after the other: a name counts only once there is a person who has it.
    for one in renamed {
        if job.names(&one.0) {
            job.renamed.push(one);
        }
    }
    set_renamed(sql, &job)
}

fn set_renamed(sql: &Connection, job: &Job) -> rusqlite::Result<()> {
    // Serialising a list of texts does not fail.
    let renamed = serde_json::to_string(&job.renamed).unwrap_or_default();
    sql.execute("UPDATE jobs SET renamed = ?2 WHERE id = ?1", params![job.id, renamed])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let (state, people, renamed): (String, String, String) = (row.get(3)?, row.get(8)?, row.get(9)?);
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
        renamed: serde_json::from_str(&renamed).unwrap_or_default(),
    })
}
