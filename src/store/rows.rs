//! Reading columns as domain types: what does not fit is an error that names the table.

use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Result, StoreError};

/// A row of one table.
pub(super) struct Of<'a>(pub &'static str, pub &'a SqliteRow);

impl Of<'_> {
    pub(super) fn text(&self, column: &str) -> Result<String> {
        self.1.try_get(column).map_err(|e| StoreError::corrupt(self.0, e))
    }

    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>> {
        self.1.try_get(column).map_err(|e| StoreError::corrupt(self.0, e))
    }

    pub(super) fn number(&self, column: &str) -> Result<i64> {
        self.1.try_get(column).map_err(|e| StoreError::corrupt(self.0, e))
    }

    pub(super) fn maybe_number(&self, column: &str) -> Result<Option<i64>> {
        self.1.try_get(column).map_err(|e| StoreError::corrupt(self.0, e))
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.number(column)? != 0)
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>> {
        self.1.try_get(column).map_err(|e| StoreError::corrupt(self.0, e))
    }

    pub(super) fn time(&self, column: &str) -> Result<Timestamp> {
        Timestamp::from_millisecond(self.number(column)?).map_err(|e| StoreError::corrupt(self.0, e))
    }

    pub(super) fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>> {
        self.maybe_number(column)?
            .map(|n| Timestamp::from_millisecond(n).map_err(|e| StoreError::corrupt(self.0, e)))
            .transpose()
    }

    pub(super) fn parsed<T: FromStr>(&self, column: &str) -> Result<T>
    where
        T::Err: ToString,
    {
        self.text(column)?
            .parse()
            .map_err(|e: T::Err| StoreError::corrupt(self.0, format!("{column}: {}", e.to_string())))
    }

    pub(super) fn maybe_parsed<T: FromStr>(&self, column: &str) -> Result<Option<T>>
    where
        T::Err: ToString,
    {
        self.maybe_text(column)?
            .map(|t| t.parse().map_err(|e: T::Err| StoreError::corrupt(self.0, format!("{column}: {}", e.to_string()))))
            .transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|e| StoreError::corrupt(self.0, format!("{column}: {e}")))
    }

    pub(super) fn maybe_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        self.maybe_text(column)?
            .map(|t| serde_json::from_str(&t).map_err(|e| StoreError::corrupt(self.0, format!("{column}: {e}"))))
            .transpose()
    }
}

/// JSON for a TEXT column.
pub(super) fn to_json<T: serde::Serialize + ?Sized>(table: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::corrupt(table, e))
}
