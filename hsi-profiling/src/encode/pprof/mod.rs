//! The gzip-compressed `profile.proto` of pprof, both ways.
//!
//! What is written holds real addresses and build ids beside the names, so that a server can merge
//! profiles by address and symbolize what had no name here. What is read may come from anyone: see
//! [`decode`] for what is refused.

mod error;
mod file;
mod proto;
mod read;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use error::DecodeError;
pub use file::{MAX_COMPRESSED_BYTES, MAX_PROFILE_BYTES};
pub use read::decode;
pub use write::encode;

/// Locations without an address get one with these upper 16 bits, which no processor can execute
/// at; in a file they have the address 0 again.
const SYNTHETIC: u64 = 0x7ffe << 48;

fn is_synthetic(address: u64) -> bool {
    address >> 48 == SYNTHETIC >> 48
}
