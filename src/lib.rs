#![doc = include_str!("lib.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backends;
mod binascii;
#[cfg(feature = "_cache")]
pub mod caches;
pub mod contrib;
pub mod crypto;
pub mod serializers;
pub mod session;
pub mod settings;
pub mod signing;
#[cfg(feature = "_web")]
pub mod web;

#[cfg(feature = "python")]
mod python;
