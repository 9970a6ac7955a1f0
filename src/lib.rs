#![doc = include_str!("lib.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod crypto;
pub mod serializers;
pub mod session;
pub mod settings;
pub mod signing;

#[cfg(feature = "python")]
mod python;
