//! Made-up stacks, in the shape of a service's: many share their callers.

use hsi_profiling::{Frame, Location, Module, Profile, Symbols, bench::Window};
use std::sync::Arc;

/// A generator of numbers that is the same in each run.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that differ by the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// Where made-up code lies.
const TEXT: std::ops::Range<u64> = 0x5500_0000_0000..0x5500_0100_0000;

/// A module that holds all made-up addresses.
#[must_use]
pub fn module() -> Arc<Module> {
    let mut module = Module::default();
    (module.path, module.start, module.end) = ("made-up".into(), TEXT.start, TEXT.end);
    Arc::new(module)
}

/// So many distinct stacks, innermost address first, 20 to 60 frames deep.
#[must_use]
pub fn stacks(count: usize, seed: u64) -> Vec<Vec<u64>> {
    let mut random = Random::new(seed);
    let at = |number: u64| TEXT.start + number * 64 % (TEXT.end - TEXT.start);
    (0..count as u64)
        .map(|i| {
            let depth = 20 + random.below(40);
            // Ten threads' roots, then a path that parts late: most of a stack is shared.
            let family = random.below(10) * 10_000;
            let parts = depth / 2 + random.below(depth / 2);
            (0..depth)
                .map(|level| match level {
                    _ if level < parts => at(family + level),
                    _ if level + 1 < depth => at(family + level + 100 * random.below(8)),
                    _ => at(500_000 + i),
                })
                .rev()
                .collect()
        })
        .collect()
}

/// A profile of these stacks on ten threads.
#[must_use]
pub fn profile(stacks: &[Vec<u64>]) -> Profile {
    let mut window = Window::new(vec![module()]);
    for (i, stack) in stacks.iter().enumerate() {
        window.add(i as u32 % 10 + 1, stack);
    }
    window.take()
}

/// Names for a profile's locations, every third with an inlined function.
#[must_use]
pub fn symbols(profile: &Profile) -> Symbols {
    let mut symbols = Symbols::new();
    for id in profile.stacks.location_ids() {
        let Location { address, .. } = profile.stacks.locations()[id.index()];
        let number = (address - TEXT.start) / 64;
        let frame = |inlined: &str| {
            Frame::new(format!("made_up::module_{}::function{inlined}_{number}", number % 97))
                .at(format!("src/module_{}.rs", number % 97), (number % 900) as u32 + 1)
        };
        let frames = match number % 3 {
            0 => vec![frame("_inlined"), frame("")],
            _ => vec![frame("")],
        };
        symbols.set(id, frames.into());
    }
    symbols
}
