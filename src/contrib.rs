//! What other parts of Django keep in a session.

pub mod auth;
pub mod csrf;
pub mod messages;
