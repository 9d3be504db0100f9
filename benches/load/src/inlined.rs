//! Two loops inlined into one function, four fifths of the time in the first: a profiler that
//! keys stacks by the enclosing function gives all of it to one of them.

use crate::clock::thread_cpu;
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

/// Works for this much CPU time; returns what each loop took by the thread's own clock. Their
/// names are `hot_a` and `hot_b`.
#[inline(never)]
#[must_use]
pub fn outer(cpu: Duration) -> (Duration, Duration) {
    let (mut a, mut b) = (Duration::ZERO, Duration::ZERO);
    let mut random = 7u64;
    while a + b < cpu {
        // Turns of another length each time: equal ones of ten milliseconds would run in step with
        // a hundred samples a second, which then see always the same loop.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let turn = Duration::from_micros(3000 + (random >> 33) % 16_000);
        let begun = thread_cpu();
        while thread_cpu() - begun < turn * 4 / 5 {
            hot_a(20_000);
        }
        let between = thread_cpu();
        while thread_cpu() - between < turn / 5 {
            hot_b(20_000);
        }
        a += between - begun;
        b += thread_cpu() - between;
    }
    (a, b)
}
