//! The only SQL. SQLite in WAL mode with `synchronous=FULL`: what was answered is on disk.
//!
//! One connection writes, a few read. Deliveries from many requests share one commit ([`Store::receive`]).
//! SQL is kept portable (BIGINT and TEXT, `$1` placeholders): PostgreSQL follows.
//!
//! Every write of a job's or rollout's state names the epoch it was claimed with; a stale one changes nothing and
//! is told so ([`StoreError::Fenced`]).

mod deliveries;
mod environments;
mod explain;
mod intake;
mod messages;
mod old;
mod proofs;
mod repos;
mod rollouts;
mod rows;
mod runs;
mod shown;

use std::{path::Path, str::FromStr, time::Duration};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use deliveries::{Delivery, DeliveryState, NewDelivery, Received};
pub use environments::{EnvironmentRow, held_words};
pub use explain::Reason;
pub use messages::Message;
pub use proofs::{Made, Standing};
pub use repos::{Repo, RepoState};
pub use rollouts::{NewRollout, RolloutRow, json_of};
pub use runs::{Job, JobNote, Planned, Run, Step, StepDone};
pub use shown::{Dirty, Rendered, Shown};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller's claim is stale: somebody else took over, and the caller must do nothing more.
    #[error("the claim on {0} is stale: another worker took over")]
    Fenced(String),
    /// The disk is full or can't be written: nothing was stored, and it heals when space returns.
    #[error("the disk of the data folder can't be written: {0}")]
    Disk(String),
    /// A row can't be read as what it should be.
    #[error("a row of {table} can't be read: {message}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Anything else of the database.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        // SQLITE_FULL (13), SQLITE_IOERR (10 and its extensions), SQLITE_READONLY (8), SQLITE_CANTOPEN (14):
        // "Result and Error Codes", sqlite.org.
        let code = e.as_database_error().and_then(|d| d.code()).and_then(|c| c.parse::<u32>().ok());
        match code.map(|c| c & 0xff) {
            Some(8 | 10 | 13 | 14) => Self::Disk(e.to_string()),
            _ => Self::Database(e),
        }
    }
}

impl StoreError {
    pub(crate) fn corrupt(table: &'static str, message: impl ToString) -> Self {
        Self::Corrupt { table, message: message.to_string() }
    }
}

type Result<T> = std::result::Result<T, StoreError>;

/// Each is applied once, in this order, in a transaction of its own.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_init.sql"), include_str!("migrations/0002.sql")];

/// Copies a database that may be in use into a new file, as one moment saw it ("VACUUM", sqlite.org).
///
/// # Errors
/// When it can't be read, or the copy can't be written or is there already.
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut connection = SqliteConnectOptions::new().filename(from).read_only(true).connect().await?;
    sqlx::query("VACUUM INTO $1").bind(to.to_string_lossy().into_owned()).execute(&mut connection).await?;
    connection.close().await?;
    std::fs::File::open(to).and_then(|f| f.sync_all()).map_err(|e| StoreError::Disk(e.to_string()))
}

/// Set by a restore until the world was looked at.
const RESTORED: &str = "restored";

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    write: SqlitePool,
    read: SqlitePool,
    intake: intake::Intake,
}

impl Store {
    /// Opens (and makes, and migrates) the database in this file.
    ///
    /// # Errors
    /// When the file can't be opened, or was made by a newer version.
    pub async fn open(file: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::from_str("sqlite://")?
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit is on disk before it returns ("PRAGMA synchronous", sqlite.org).
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true)
            .pragma("cache_size", "-1024")
            .pragma("temp_store", "MEMORY")
            .pragma("journal_size_limit", "16777216")
            // Pages that are written again and again go to the database once for so many, not for each thousand.
            .pragma("wal_autocheckpoint", "4000");
        // On a full disk SQLite ends a transaction by itself, and the driver still counts it: such a connection is closed, or
        // every later write would fail though space has returned.
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        let write = write.connect_with(options.clone()).await?;
        let read = SqlitePoolOptions::new().max_connections(4).min_connections(0).idle_timeout(Duration::from_secs(60));
        let read = read.connect_lazy_with(options);
        migrate(&write).await?;
        let intake = intake::Intake::start(write.clone());
        Ok(Self { write, read, intake })
    }

    /// A transaction that holds the write lock from its first statement.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// True when the database can be written now.
    pub async fn writable(&self) -> bool {
        let Ok(mut tx) = self.begin().await else { return false };
        let write = sqlx::query("INSERT INTO meta (name, value) VALUES ('ready', '1') ON CONFLICT (name) DO UPDATE SET value = CASE value WHEN '1' THEN '2' ELSE '1' END")
            .execute(&mut *tx)
            .await;
        write.is_ok() && tx.commit().await.is_ok()
    }

    /// Notes that this database is a backup's: the world went on without it.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn mark_restored(&self) -> Result<()> {
        self.set_meta(RESTORED, "1").await
    }

    /// Whether it is a backup's and the world was not looked at yet.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn is_restored(&self) -> Result<bool> {
        Ok(self.meta(RESTORED).await?.is_some())
    }

    /// The world was looked at: from now on it is like any other.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn end_restored(&self) -> Result<()> {
        sqlx::query("DELETE FROM meta WHERE name = $1").bind(RESTORED).execute(&self.write).await?;
        Ok(())
    }

    /// A small named value.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn meta(&self, name: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(&self.read).await?)
    }

    /// Sets a small named value.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn set_meta(&self, name: &str, value: &str) -> Result<()> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
            .bind(name)
            .bind(value)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Finishes all writes and closes the files.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

async fn migrate(pool: &SqlitePool) -> Result<()> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)").execute(&mut *tx).await?;
    let at: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM schema_version").fetch_one(&mut *tx).await?;
    let at = usize::try_from(at.unwrap_or(0)).unwrap_or(0);
    if at > MIGRATIONS.len() {
        return Err(StoreError::corrupt(
            "schema_version",
            format!(
                "the database is of version {at}, this program knows up to {}: start the newer one",
                MIGRATIONS.len()
            ),
        ));
    }
    for (n, sql) in MIGRATIONS.iter().enumerate().skip(at) {
        sqlx::raw_sql(*sql).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(i64::try_from(n + 1).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Milliseconds since 1970, as stored.
fn ms(t: Timestamp) -> i64 {
    t.as_millisecond()
}
