//! actix: webhook, health, metrics, pages.
