//! A thread that has used AMX: the kernel's signal frame then fills the alternate stack that the
//! standard library made, but for some hundred bytes.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, reason = "tiles have no safe interface")]

mod common;

use common::{child::isolated, thread_cpu};
use hsi_profiling::Config;
use std::{arch::asm, time::Duration};

const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
const XFEATURE_XTILE_DATA: libc::c_int = 18;

/// Asks the kernel for the use of tiles; whether this machine has them.
fn request_tiles() -> bool {
    // SAFETY: arch_prctl takes numbers and checks them.
    (unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA) }) == 0
}

/// Loads a tile and works, so that every signal frame has to save the tiles.
#[inline(never)]
fn burn_with_tiles(cpu: Duration) {
    // Palette 1, and one tile of a row of four bytes (Intel SDM, LDTILECFG).
    let mut config = [0u8; 64];
    (config[0], config[16], config[48]) = (1, 4, 1);
    let end = thread_cpu() + cpu;
    while thread_cpu() < end {
        // SAFETY: the kernel allowed tiles, the configuration is 64 valid bytes, and no compiled
        // code uses tiles.
        unsafe {
            asm!("ldtilecfg [{}]", "tilezero tmm0", in(reg) config.as_ptr(), options(nostack));
        }
        common::spin(20_000);
    }
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack)) };
}

#[test]
fn a_thread_that_uses_tiles_survives_its_samples() {
    isolated("a_thread_that_uses_tiles_survives_its_samples", || {
        if !request_tiles() {
            eprintln!("NOT RUN: this processor or kernel has no AMX");
            return;
        }
        let session = Config::builder("tiles").cpu_hz(1000).start().unwrap();
        std::thread::spawn(|| burn_with_tiles(Duration::from_secs(1))).join().unwrap();
        let stats = session.handle().stats();
        assert!(stats.recorded > 50, "{stats:#?}");
    });
}
