//! Names for the addresses of a real profile of this program, with its debug info: the first time,
//! with a fresh reader, and again, from the cache.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hsi_profiling::{Config, Profile, ProfileType, Query, Symbolizer};
use hsi_profiling_bench_load::work::Crew;
use std::{thread, time::Duration};

fn symbolize(criterion: &mut Criterion) {
    let profile = real_profile();
    let addresses = profile.stacks.locations().len() as u64;
    let mut group = criterion.benchmark_group("symbolize");
    group.sample_size(10).throughput(Throughput::Elements(addresses));
    group.bench_function("first", |b| b.iter(|| Symbolizer::new().symbolize(&profile.stacks)));
    let known = Symbolizer::new();
    let _ = known.symbolize(&profile.stacks);
    group.bench_function("warm", |b| b.iter(|| known.symbolize(&profile.stacks)));
    group.finish();
}

fn real_profile() -> Profile {
    let built = Config::builder("symbolize").cpu_hz(250).start();
    let session = built.unwrap_or_else(|error| panic!("{error}"));
    let crew = Crew::start(2);
    thread::sleep(Duration::from_secs(3));
    crew.end();
    let profile = session.handle().query(&Query::new(ProfileType::Cpu));
    profile.unwrap_or_else(|error| panic!("{error}"))
}

criterion_group!(benches, symbolize);
criterion_main!(benches);
