//! Sessions in web services.

pub mod cookies;

#[cfg(feature = "axum")]
pub mod axum;
