//! Arbitrary bytes as a pprof file: refused, or a profile that can be drawn, written and read
//! again as the same profile.

#![no_main]

use hsi_profiling::{CallTree, encode::pprof};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((profile, symbols)) = pprof::decode(bytes) else { return };
    let tree = |profile, symbols| CallTree::new(profile, symbols, 0);
    let drawn = tree(&profile, &symbols);

    let written = pprof::encode(&profile, &symbols);
    let (profile2, symbols2) = pprof::decode(&written).expect("what was written can be read");
    assert_eq!(profile2.types, profile.types);
    assert_eq!(profile2.len(), profile.len());
    assert_eq!(tree(&profile2, &symbols2), drawn);
    assert_eq!(pprof::encode(&profile2, &symbols2), written);
});
