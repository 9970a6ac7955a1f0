//! How the content of a session becomes bytes, as in `django.contrib.sessions.serializers`.

pub mod json;
#[cfg(feature = "legacy")]
pub mod legacy;
#[cfg(feature = "msgpack")]
pub mod msgpack;
pub mod pickle;
