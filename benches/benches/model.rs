//! What is done with samples off the handler: adding up, keeping, merging, encoding, and the tree
//! that the page draws. All on made-up stacks of 20 to 60 frames.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hsi_profiling::{
    CallTree, ProfileType, Query, Timestamp,
    bench::{Buckets, Window},
    encode,
};
use hsi_profiling_benches::made_up::{Random, module, profile, stacks, symbols};
use std::{hint::black_box, time::Duration};

/// A second of two busy cores at 100 Hz is 200 records; this is ten seconds.
const RECORDS: usize = 2000;

fn aggregate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for distinct in [100, RECORDS] {
        let stacks = stacks(distinct, 1);
        group.bench_function(BenchmarkId::new("window_of_stacks", distinct), |b| {
            b.iter_batched(
                || Window::new(vec![module()]),
                |mut window| {
                    for i in 0..RECORDS {
                        window.add(i as u32 % 10 + 1, &stacks[i % distinct]);
                    }
                    window.take()
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn store(criterion: &mut Criterion) {
    let start = |i: i64| Timestamp::from_unix_millis(i * 10_000);
    let all = stacks(3000, 2);
    let mut random = Random::new(3);
    let windows: Vec<_> = (0..90)
        .map(|_| {
            let some = (0..600).map(|_| all[random.below(3000) as usize].clone());
            profile(&some.collect::<Vec<_>>())
        })
        .collect();
    let fill = || {
        let mut buckets = Buckets::new(64 << 20);
        for (i, window) in (0..).zip(&windows) {
            buckets.push(window, start(i), start(i + 1));
        }
        buckets
    };
    let full = fill();
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    group.bench_function("push_10_s", |b| {
        b.iter_batched_ref(
            fill,
            |buckets| buckets.push(&windows[0], start(90), start(91)),
            BatchSize::PerIteration,
        );
    });
    let query = Query::new(ProfileType::Cpu).from(start(0)).to(start(90));
    group.bench_function("merge_15_min", |b| b.iter(|| full.query(black_box(&query))));
    group.finish();
}

fn encoders(criterion: &mut Criterion) {
    let profile = profile(&stacks(2000, 4));
    let symbols = symbols(&profile);
    let tree = CallTree::new(&profile, &symbols, 1);
    let mut group = criterion.benchmark_group("encode_2000_stacks");
    group.sample_size(20);
    group.bench_function("pprof", |b| b.iter(|| encode::pprof::encode(&profile, &symbols)));
    group.bench_function("folded", |b| b.iter(|| encode::folded::encode(&tree)));
    group.finish();
}

fn tree(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call_tree");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    for frames in [10_000, 100_000] {
        let (profile, symbols) = with_frames(frames);
        group.throughput(Throughput::Elements(frames as u64));
        group.bench_function(BenchmarkId::new("frames", frames), |b| {
            b.iter(|| CallTree::new(black_box(&profile), &symbols, 1));
        });
    }
    group.finish();
}

/// A profile whose tree has about so many nodes.
fn with_frames(frames: usize) -> (hsi_profiling::Profile, hsi_profiling::Symbols) {
    let (mut low, mut high) = (1, frames);
    let build = |count: usize| {
        let profile = profile(&stacks(count, 5));
        let symbols = symbols(&profile);
        let nodes = CallTree::new(&profile, &symbols, 1).nodes().len();
        (profile, symbols, nodes)
    };
    // By halving: how many stacks share how much is not known beforehand.
    while high - low > 1 + low / 50 {
        let middle = low.midpoint(high);
        if build(middle).2 < frames { low = middle } else { high = middle }
    }
    let (profile, symbols, nodes) = build(high);
    assert!(nodes.abs_diff(frames) < frames / 10, "{nodes} nodes are not {frames}");
    (profile, symbols)
}

criterion_group!(benches, aggregate, store, encoders, tree);
criterion_main!(benches);
