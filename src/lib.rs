#![doc = include_str!("lib.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backends;
mod binascii;
#[cfg(feature = "_cache")]
pub mod caches;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contrib;
pub mod crypto;
pub mod serializers;
pub mod session;
pub mod settings;
pub mod signing;
mod temporary;
#[cfg(feature = "_web")]
pub mod web;

#[cfg(feature = "python")]
mod python;

/// The pages of the documentation, whose programs are compiled and run with the doctests.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "conformance",
    feature = "file",
    feature = "postgres",
    feature = "redis"
))]
mod pages {
    #[doc = include_str!("../docs/rust.md")]
    mod rust {}
    #[doc = include_str!("../docs/rust-settings.md")]
    mod rust_settings {}
    #[cfg(feature = "toml")]
    #[doc = include_str!("../docs/merge.md")]
    mod merge {}
    #[doc = include_str!("../docs/devices.md")]
    mod devices {}
    #[cfg(all(feature = "hashers", feature = "sqlite", feature = "toml"))]
    #[doc = include_str!("../docs/move-an-endpoint.md")]
    mod move_an_endpoint {}
}
