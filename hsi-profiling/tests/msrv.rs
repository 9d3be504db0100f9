//! The workspace's `rust-version` is true of its dependencies too. (Clippy's `incompatible_msrv`
//! sees to our own code.)
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

#[test]
fn no_dependency_needs_a_newer_rust() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = String::from_utf8(output.stdout).unwrap();
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    let wanted: Vec<&str> = metadata
        .split("\"rust_version\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(wanted.len() > 30, "the test saw just {} versions", wanted.len());
    let newest = wanted.into_iter().max_by_key(|text| version(text)).unwrap();
    assert!(version(newest) <= ours, "a dependency needs Rust {newest}");
}

fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    parts.resize(3, 0);
    parts
}
