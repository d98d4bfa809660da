//! The queue of files to analyse: that of the crate apalis, in the database of the library.
//!
//! A worker that has taken a file sends a heartbeat every few seconds. When the heartbeat stops, another
//! worker takes the file. The statements of apalis run in transactions of the library, so that the results of
//! a file and the acknowledgement of its task are stored atomically. A worker that lost its task in the
//! meantime acknowledges nothing, and its results are dropped.
//!
//! apalis was chosen because the same queue works in SQLite and in PostgreSQL. graphile_worker, the
//! alternative considered, supports only PostgreSQL and acknowledges outside of the transaction of the
//! results.

use std::time::Duration;

use apalis_core::backend::{TaskResult, WorkerFilter};
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::status::Status;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use serde_json::Value;

use super::database::{Database, Transaction};

/// Name of the queue.
const QUEUE: &str = "sphereface";
/// The most attempts per file.
pub(super) const ATTEMPTS: usize = 3;
/// Seconds before the second and the third attempt: a share that was away or a disk that was full may be right again then.
pub(super) const RETRY_AFTER_S: [u32; ATTEMPTS - 1] = [5, 60];
/// Missed heartbeats after which a worker counts as dead.
const MISSED: u32 = 3;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A worker of the queue.
#[derive(Debug, Clone)]
pub(super) struct Member {
    context: WorkerContext,
    heartbeat: Duration,
}

/// A task that this worker has taken.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    id: TaskId,
    /// The number of earlier attempts.
    pub tried: usize,
    /// The digest of the file.
    pub content: String,
}

/// The outcome of the work on a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed(String),
    /// Nothing was attempted, and nothing can be for so many seconds.
    Later(u32),
}

impl Member {
    /// A worker of that name, which must be unique, with one heartbeat per `heartbeat`.
    pub fn new(name: &str, heartbeat: Duration) -> Self {
        Self { context: WorkerContext::new(name), heartbeat }
    }

    pub fn name(&self) -> &str {
        self.context.name()
    }

    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// The time without a heartbeat after which a worker counts as dead.
    fn dead_for_s(&self) -> u64 {
        (self.heartbeat * MISSED).as_secs().max(1)
    }

    fn sqlite(&self) -> apalis_sqlite::Config {
        apalis_sqlite::Config::default().queue(QUEUE).batch_size(1).heartbeat_interval(self.heartbeat)
    }

    fn postgres(&self) -> apalis_postgres::Config {
        apalis_postgres::Config::default().queue(QUEUE).batch_size(1).heartbeat_interval(self.heartbeat)
    }

    /// Enters the worker into the list of workers.
    pub async fn register(&self, database: &Database) -> Result<(), Failure> {
        let mut transaction = database.begin().await?;
        match &mut transaction {
            Transaction::Sqlite(transaction) => {
                let config = self.sqlite();
                apalis_sqlite::queries::register_worker(
                    &mut **transaction,
                    &config,
                    &self.context,
                    "library",
                )
                .await?;
            }
            Transaction::Postgres(transaction) => {
                let statement = "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, last_seen) \
                                 VALUES ($1, $2, 'library', '', now()) ON CONFLICT (id) DO UPDATE SET last_seen = now()";
                let query = sqlx::query(statement).bind(self.context.name()).bind(QUEUE);
                query.execute(&mut **transaction).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Sends a heartbeat.
    pub async fn keep_alive(&self, database: &Database) -> Result<(), Failure> {
        let mut transaction = database.begin().await?;
        self.keep_alive_in(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    async fn keep_alive_in(&self, transaction: &mut Transaction) -> Result<(), Failure> {
        match transaction {
            Transaction::Sqlite(transaction) => {
                let config = self.sqlite();
                apalis_sqlite::queries::keep_alive(&mut **transaction, &config, &self.context).await?;
            }
            Transaction::Postgres(transaction) => {
                apalis_postgres::queries::keep_alive(&mut **transaction, QUEUE, &self.context).await?;
            }
        }
        Ok(())
    }

    /// Takes the next task, if there is one. That includes tasks of dead workers.
    pub async fn next(&self, database: &Database) -> Result<Option<Claim>, Failure> {
        let mut transaction = database.begin().await?;
        self.keep_alive_in(&mut transaction).await?;
        let name = self.context.name();
        let dead_for_s = self.dead_for_s();
        let tasks = match &mut transaction {
            Transaction::Sqlite(transaction) => {
                use apalis_sqlite::queries::{fetch_next, lock_tasks, reenqueue_orphaned};
                let others = WorkerFilter::AllExcept(name.to_owned());
                reenqueue_orphaned(&mut **transaction, dead_for_s as i64, QUEUE, &others).await?;
                let tasks = fetch_next(&mut **transaction, &self.sqlite(), &self.context).await?;
                lock_tasks(&mut **transaction, &ids(&tasks), name).await?;
                tasks
            }
            Transaction::Postgres(transaction) => {
                use apalis_postgres::queries::{fetch_next, lock_tasks, reenqueue_orphaned};
                reenqueue_orphaned(&mut **transaction, QUEUE, dead_for_s).await?;
                let tasks = fetch_next(&mut **transaction, &self.postgres(), &self.context).await?;
                lock_tasks(&mut **transaction, &ids(&tasks), name).await?;
                tasks
            }
        };
        transaction.commit().await?;
        let Some(task) = tasks.into_iter().next() else { return Ok(None) };
        let id = task.task_id().cloned().ok_or("a task has no number")?;
        Ok(Some(Claim { id, tried: task.attempt(), content: serde_json::from_slice(&task.args)? }))
    }

    /// Acknowledges a task in the transaction of its results. After a failure it is due again after a pause, at most
    /// [`ATTEMPTS`] times. `false` if it is no longer this worker's: then the transaction must be rolled back.
    pub async fn finish(
        &self,
        transaction: &mut Transaction,
        claim: &Claim,
        outcome: &Outcome,
    ) -> Result<bool, Failure> {
        let (status, result) = match outcome {
            Outcome::Done => (Status::Done, Ok(Value::Null)),
            Outcome::Failed(reason) => (Status::Failed, Err(reason.clone())),
            Outcome::Later(pause_s) => {
                let free = self.free(transaction, claim).await?;
                if free {
                    Self::postpone(transaction, claim, *pause_s).await?;
                }
                return Ok(free);
            }
        };
        let result = TaskResult { task_id: claim.id.clone(), attempt: claim.tried + 1, status, result };
        let name = self.context.name();
        let changed = match transaction {
            Transaction::Sqlite(transaction) => {
                apalis_sqlite::queries::ack_tasks(&mut **transaction, &[&result], name).await?
            }
            Transaction::Postgres(transaction) => {
                apalis_postgres::queries::handle_results(&mut **transaction, &[&result], name).await?
            }
        };
        if changed == 1 && *outcome != Outcome::Done {
            Self::postpone(transaction, claim, RETRY_AFTER_S[claim.tried.min(RETRY_AFTER_S.len() - 1)])
                .await?;
        }
        Ok(changed == 1)
    }

    /// Lets a task wait before the next attempt.
    async fn postpone(transaction: &mut Transaction, claim: &Claim, pause_s: u32) -> Result<(), Failure> {
        let id = claim.id.to_string();
        match transaction {
            Transaction::Sqlite(transaction) => {
                let statement = "UPDATE Jobs SET run_at = strftime('%s', 'now') + $2 WHERE id = $1";
                sqlx::query(statement).bind(id).bind(pause_s).execute(&mut **transaction).await?;
            }
            Transaction::Postgres(transaction) => {
                let statement =
                    "UPDATE apalis.jobs SET run_at = now() + make_interval(secs => $2) WHERE id = $1";
                let query = sqlx::query(statement).bind(id).bind(f64::from(pause_s));
                query.execute(&mut **transaction).await?;
            }
        }
        Ok(())
    }

    /// Returns a task to the queue, as if it had not been taken.
    pub async fn give_back(&self, database: &Database, claim: &Claim) -> Result<(), Failure> {
        let mut transaction = database.begin().await?;
        self.free(&mut transaction, claim).await?;
        Ok(transaction.commit().await?)
    }

    /// Makes a task one that nobody has taken. `false` if it is no longer this worker's.
    async fn free(&self, transaction: &mut Transaction, claim: &Claim) -> Result<bool, Failure> {
        let (id, name) = (claim.id.to_string(), self.context.name());
        let free = "status = 'Pending', lock_by = NULL, lock_at = NULL, done_at = NULL";
        let changed = match transaction {
            Transaction::Sqlite(transaction) => {
                let statement = format!("UPDATE Jobs SET {free} WHERE id = $1 AND lock_by = $2");
                let query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id).bind(name);
                query.execute(&mut **transaction).await?.rows_affected()
            }
            Transaction::Postgres(transaction) => {
                let statement = format!("UPDATE apalis.jobs SET {free} WHERE id = $1 AND lock_by = $2");
                let query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id).bind(name);
                query.execute(&mut **transaction).await?.rows_affected()
            }
        };
        Ok(changed == 1)
    }
}

/// Numbers of tasks.
fn ids(tasks: &[apalis_core::task::Task<Vec<u8>>]) -> Vec<String> {
    tasks.iter().filter_map(|task| task.task_id().map(ToString::to_string)).collect()
}

/// Adds files to the queue; those with a higher priority are taken first.
pub(super) async fn push(
    transaction: &mut Transaction,
    contents: &[String],
    priority: u32,
) -> Result<(), Failure> {
    let task = |content: &String| {
        let arguments = serde_json::to_vec(content)?;
        Ok(TaskBuilder::new(arguments).max_attempts(ATTEMPTS).priority(priority as usize).build())
    };
    let tasks = contents.iter().map(task).collect::<Result<Vec<_>, Failure>>()?;
    match transaction {
        Transaction::Sqlite(transaction) => {
            apalis_sqlite::queries::push_tasks(&mut **transaction, QUEUE, &tasks).await?;
        }
        Transaction::Postgres(transaction) => {
            apalis_postgres::queries::push_tasks(&mut **transaction, QUEUE, tasks).await?;
        }
    }
    Ok(())
}

/// Removes finished tasks from the queue: the catalogue has their outcomes.
pub(super) async fn tidy(transaction: &mut Transaction) -> Result<(), Failure> {
    match transaction {
        Transaction::Sqlite(transaction) => {
            let statement = "DELETE FROM Jobs WHERE job_type = $1 AND (status = 'Done' OR (status = 'Failed' AND attempts >= max_attempts))";
            sqlx::query(statement).bind(QUEUE).execute(&mut **transaction).await?;
        }
        Transaction::Postgres(transaction) => {
            let statement = "DELETE FROM apalis.jobs WHERE job_type = $1 AND (status = 'Done' OR (status = 'Failed' AND attempts >= max_attempts))";
            sqlx::query(statement).bind(QUEUE).execute(&mut **transaction).await?;
        }
    }
    Ok(())
}

/// Workers with a heartbeat within the last minute.
pub(super) async fn workers(database: &Database) -> Result<i64, sqlx::Error> {
    let (count,): (i64,) = match database {
        Database::Sqlite(pool) => {
            let statement = "SELECT COUNT(*) FROM Workers WHERE worker_type = $1 AND strftime('%s', 'now') - last_seen < 60";
            sqlx::query_as(statement).bind(QUEUE).fetch_one(pool).await?
        }
        Database::Postgres(pool) => {
            let statement = "SELECT COUNT(*) FROM apalis.workers WHERE worker_type = $1 AND now() - last_seen < INTERVAL '60 seconds'";
            sqlx::query_as(statement).bind(QUEUE).fetch_one(pool).await?
        }
    };
    Ok(count)
}

impl Member {
    /// Removes the worker from the list of workers.
    pub async fn leave(&self, database: &Database) -> Result<(), Failure> {
        // The row remains as long as tasks refer to it. An old time of the last heartbeat makes the worker
        // count as dead.
        let name = self.context.name();
        match database {
            Database::Sqlite(pool) => {
                let statement = "UPDATE Workers SET last_seen = 0 WHERE id = $1";
                sqlx::query(statement).bind(name).execute(pool).await?;
            }
            Database::Postgres(pool) => {
                let statement = "UPDATE apalis.workers SET last_seen = to_timestamp(0) WHERE id = $1";
                sqlx::query(statement).bind(name).execute(pool).await?;
            }
        }
        Ok(())
    }
}
