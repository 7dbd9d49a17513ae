//! The routes, one file per API. Each gives its part of the table in `app.rs`.

pub mod health;
