//! What other parts of Django keep in a session.

pub mod auth;
pub mod csrf;
#[cfg(feature = "_sql")]
pub mod devices;
pub mod messages;
