//! Two loops inlined into one function: the split between them is what keying stacks by the
//! enclosing function gets wrong.

mod common;

use common::{burn, folded, thread_cpu, time_in};
use hsi_profiling::{Config, ProfileType, Query};
use std::{hint::black_box, time::Duration};

#[inline(always)]
fn hot_a(rounds: u64) -> u64 {
    let mut x = black_box(3u64);
    for i in 0..rounds {
        x = x.wrapping_mul(0x9e37_79b9).rotate_left(7) ^ i;
    }
    black_box(x)
}

#[inline(always)]
fn hot_b(rounds: u64) -> u64 {
    let mut x = black_box(5u64);
    for i in 0..rounds {
        x = x.wrapping_add(0x9e37_79b9).rotate_right(3) ^ (i << 1);
    }
    black_box(x)
}

/// Returns how much CPU time each loop took, by the thread's own clock.
#[inline(never)]
fn outer(cpu: Duration) -> (Duration, Duration) {
    let (mut a, mut b) = (Duration::ZERO, Duration::ZERO);
    while a + b < cpu {
        let t0 = thread_cpu();
        // Long enough that reading the clock is nothing beside it.
        while thread_cpu() - t0 < Duration::from_millis(8) {
            hot_a(20_000);
        }
        let t1 = thread_cpu();
        while thread_cpu() - t1 < Duration::from_millis(2) {
            hot_b(20_000);
        }
        a += t1 - t0;
        b += thread_cpu() - t1;
    }
    (a, b)
}

#[test]
fn the_split_between_inlined_loops_is_right() {
    let session = Config::builder("inline-split").cpu_hz(1000).start().unwrap();
    let handle = session.handle();
    burn(Duration::from_millis(100));
    let (a, b) = outer(Duration::from_secs(4));
    let truth = a.as_secs_f64() / (a + b).as_secs_f64();
    let profile = handle.query(&Query::new(ProfileType::Cpu)).unwrap();
    let (in_a, in_b) = (time_in(&handle, &profile, "hot_a"), time_in(&handle, &profile, "hot_b"));
    let share = in_a.as_secs_f64() / (in_a + in_b).as_secs_f64();
    assert!((share - truth).abs() < 0.03, "{share} is not {truth}: {}", folded(&handle, &profile));
    assert!((0.7..0.9).contains(&share), "{share}");
}
