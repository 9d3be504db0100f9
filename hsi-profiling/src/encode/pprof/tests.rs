//! Round trips over generated profiles, profiles of other programs, and damaged ones.

use super::{file::Limits, proto, read::decode_within, *};
use crate::profile::{
    CallTree, Frame, Labels, Location, Module, Profile, Symbols, Timestamp, Unit, ValueType,
};
use flate2::read::GzDecoder;
use prost::Message;
use std::{io::Read, sync::Arc, time::Duration};

/// A small generator; the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

fn generated(seed: u64) -> (Profile, Symbols) {
    let mut r = Random(0x9e37_79b9_7f4a_7c15 ^ (seed + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let types = ["samples", "cpu", "wall", "alloc_space"][..1 + r.below(4) as usize].iter();
    let units = [Unit::Count, Unit::Nanoseconds, Unit::Bytes, "furlongs".into()];
    let types = types.zip(units).map(|(name, unit)| ValueType::new(*name, unit)).collect();
    let mut p =
        Profile::new(types, ValueType::new("cpu", Unit::Nanoseconds), r.below(1 << 40) as i64);
    p.default_type = r.below(p.types.len() as u64) as usize;
    p.start = Timestamp::from_unix_millis(1_700_000_000_000);
    p.duration = Duration::from_nanos(r.below(1 << 40));
    p.comments = (0..r.below(3)).map(|i| format!("lost {i} · ring full")).collect();

    let modules: Vec<_> = (0..r.below(4))
        .map(|i| {
            let (start, file_offset) = (0x5500_0000 + i * 0x10_0000, r.below(4) * 4096);
            let path = if i == 3 { "[vdso]".into() } else { format!("/srv/lib{i}.so") };
            let build_id =
                if r.chance(2) { format!("{:040x}", r.below(u64::MAX)) } else { String::new() };
            p.stacks.module(&Arc::new(Module {
                path: path.into(),
                build_id: build_id.into(),
                start,
                end: start + 0x10_0000,
                file_offset,
                bias: start - file_offset,
            }))
        })
        .collect();
    let mut symbols = Symbols::new();
    let locations: Vec<_> = (0..1 + r.below(60))
        .map(|_| {
            let module = (!modules.is_empty() && !r.chance(4))
                .then(|| modules[r.below(modules.len() as u64) as usize]);
            let id = p.stacks.location(Location::new(0x5500_0000 + r.below(0x40_0000), module));
            if !r.chance(4) {
                symbols.set(id, (0..1 + r.below(3)).map(|_| frame(&mut r)).collect());
            }
            id
        })
        .collect();
    for _ in 0..r.below(80) {
        let depth = r.below(12) as usize;
        let path = (0..depth).map(|_| locations[r.below(locations.len() as u64) as usize]);
        let path: Vec<_> = path.collect();
        let stack = p.stacks.intern(path);
        let mut set = Labels::EMPTY;
        for key in ["route", "span_id", "ключ"] {
            if r.chance(3) {
                set = set.with(key, &format!("v{}", r.below(3)));
            }
        }
        let labels = p.labels.intern(&set);
        let values: Vec<_> = p.types.iter().map(|_| r.below(1 << 50) as i64 - (1 << 40)).collect();
        p.add(stack, labels, &values);
    }
    (p, symbols)
}

fn frame(r: &mut Random) -> Frame {
    let name = format!("crate_{}::<impl Trait for [u8; 4]>::f{}", r.below(3), r.below(20));
    let mut frame = Frame::new(name);
    if r.chance(2) {
        frame.system_name = format!("_ZN{}", r.below(20)).into();
    }
    if r.chance(3) {
        frame
    } else {
        frame.at(format!("src/{}.rs", r.below(4)), r.below(500) as u32)
    }
}

/// Everything that a reader of the profile can see, sample by sample.
fn shown(p: &Profile, symbols: &Symbols) -> Vec<String> {
    let place = |id| {
        let (at, module) = p.stacks.resolve(id).unwrap();
        let frames = symbols.get(id);
        match (frames.is_empty(), is_synthetic(at.address)) {
            (false, true) => format!("{module:?} {frames:?}"),
            _ => format!("{:#x} {module:?} {frames:?}", at.address),
        }
    };
    let mut lines: Vec<_> = p
        .samples()
        .map(|(sample, values)| {
            let stack: Vec<_> = p.stacks.frames(sample.stack).map(place).collect();
            format!("{:?} {stack:?} {values:?}", p.labels.get(sample.labels))
        })
        .collect();
    lines.sort();
    let head = (&p.types, p.default_type, &p.period_type, p.period, p.start, p.duration);
    lines.push(format!("{head:?} {:?}", p.comments));
    lines
}

fn raw(gzipped: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    GzDecoder::new(gzipped).read_to_end(&mut raw).unwrap();
    raw
}

#[test]
fn generated_profiles_come_back_as_they_were() {
    for seed in 0..300 {
        let (p, symbols) = generated(seed);
        let bytes = encode(&p, &symbols);
        let (p2, symbols2) = decode(&bytes).unwrap();
        assert_eq!(shown(&p2, &symbols2), shown(&p, &symbols), "seed {seed}");
        assert_eq!(encode(&p2, &symbols2), bytes, "seed {seed}");
        assert_eq!(encode(&p, &symbols), bytes, "seed {seed}");
        let (p3, symbols3) = decode(&raw(&bytes)).unwrap();
        assert_eq!(shown(&p3, &symbols3), shown(&p, &symbols), "seed {seed}, not compressed");
        assert_eq!(CallTree::new(&p2, &symbols2, 0), CallTree::new(&p, &symbols, 0), "seed {seed}");
    }
}

#[test]
fn without_symbols_addresses_remain() {
    let (p, _) = generated(7);
    let (p2, symbols2) = decode(&encode(&p, &Symbols::new())).unwrap();
    assert_eq!(shown(&p2, &symbols2), shown(&p, &Symbols::new()));
}

#[test]
fn mapping_flags_say_what_is_known() {
    let mut p = Profile::cpu(Duration::from_millis(10));
    let mut symbols = Symbols::new();
    let module = |path: &str| Arc::new(Module { path: path.into(), ..Module::default() });
    let frames = [
        vec![],
        vec![Frame::new("f")],
        vec![Frame::new("f").at("f.rs", 0)],
        vec![Frame::new("in").at("f.rs", 3), Frame::new("f").at("f.rs", 9)],
    ];
    p.stacks.module(&module("unused"));
    for (i, frames) in frames.into_iter().enumerate() {
        let id = p.stacks.module(&module(&format!("m{i}")));
        let location = p.stacks.location(Location::new(1, Some(id)));
        if !frames.is_empty() {
            symbols.set(location, frames.into());
        }
        let stack = p.stacks.intern([location]);
        p.add(stack, crate::profile::LabelsId::EMPTY, &[1, 1]);
    }
    let file = proto::Profile::decode(&*raw(&encode(&p, &symbols))).unwrap();
    let flags: Vec<_> = (file.mapping.iter())
        .map(|m| (m.id, m.has_functions, m.has_filenames, m.has_line_numbers, m.has_inline_frames))
        .collect();
    let want = [
        (1, false, false, false, false),
        (2, true, false, false, false),
        (3, true, true, false, false),
        (4, true, true, true, true),
    ];
    assert_eq!(flags, want);
}

/// A heap profile as Go's runtime writes it: four types, a number as label, sparse ids.
fn heap_of_go() -> proto::Profile {
    let strings = [
        "",
        "alloc_objects",
        "count",
        "alloc_space",
        "bytes",
        "inuse_objects",
        "inuse_space",
        "space",
        "main.work",
        "/src/main.go",
        "main.inlined",
        "/bin/app",
        "0123abcd",
        "request",
    ];
    let value_type = |name, unit| proto::ValueType { name, unit };
    let function = |id, name| proto::Function { id, name, system_name: name, filename: 9 };
    let line = |function_id, line| proto::Line { function_id, line };
    proto::Profile {
        sample_type: vec![value_type(1, 2), value_type(3, 4), value_type(5, 2), value_type(6, 4)],
        sample: vec![proto::Sample {
            location_id: vec![900, 7],
            value: vec![10, 5120, 1, 512],
            label: vec![
                proto::Label { key: 4, number: 512, ..Default::default() },
                proto::Label { key: 13, number: 3, number_unit: 2, ..Default::default() },
            ],
        }],
        mapping: vec![proto::Mapping {
            id: 3,
            memory_start: 0x40_0000,
            memory_limit: 0x60_0000,
            filename: 11,
            build_id: 12,
            has_functions: true,
            ..Default::default()
        }],
        location: vec![
            proto::Location {
                id: 900,
                mapping_id: 3,
                address: 0x40_1234,
                line: vec![line(77, 12), line(5, 30)],
            },
            proto::Location { id: 7, mapping_id: 3, address: 0x40_4321, line: vec![line(5, 41)] },
        ],
        function: vec![function(77, 10), function(5, 8)],
        string_table: strings.map(Into::into).into(),
        period_type: Some(value_type(7, 4)),
        period: 524_288,
        ..Default::default()
    }
}

#[test]
fn profiles_of_go_are_read() {
    let (p, symbols) = decode(&heap_of_go().encode_to_vec()).unwrap();
    assert_eq!(p.types[3], ValueType::new("inuse_space", Unit::Bytes));
    assert_eq!((p.default_type, p.total(1), p.period), (3, 5120, 524_288));
    let (sample, _) = p.samples().next().unwrap();
    let labels = p.labels.get(sample.labels);
    assert_eq!((labels.get("bytes"), labels.get("request")), (Some("512"), Some("3 count")));
    let tree = CallTree::new(&p, &symbols, 3);
    let names: Vec<_> =
        tree.nodes().iter().map(|n| &*tree.frames()[n.frame as usize].function).collect();
    assert_eq!(names, ["all", "main.work", "main.work", "main.inlined"]);
}

#[test]
fn places_without_an_address_stay_apart_by_name() {
    let mut file = heap_of_go();
    file.mapping.clear();
    for location in &mut file.location {
        (location.mapping_id, location.address) = (0, 0);
    }
    let (p, symbols) = decode(&file.encode_to_vec()).unwrap();
    assert_eq!(p.stacks.locations().len(), 2);
    let back = raw(&encode(&p, &symbols));
    let back_file = proto::Profile::decode(&*back).unwrap();
    assert!(back_file.location.iter().all(|l| l.address == 0 && l.mapping_id == 0));
    let (p2, symbols2) = decode(&back).unwrap();
    assert_eq!(shown(&p2, &symbols2), shown(&p, &symbols));

    // Names that follow an address are kept apart, too, and another file's names are not mixed up
    // with them when both are merged.
    file.function[0].name = 13;
    let (other, other_symbols) = decode(&file.encode_to_vec()).unwrap();
    let (mut sum, mut sum_symbols) = (p, symbols);
    let adopted = sum.merge(&other);
    sum_symbols.adopt(&other_symbols, &adopted);
    let tree = CallTree::new(&sum, &sum_symbols, 1);
    let mut leaves: Vec<_> = (tree.nodes().iter().filter(|n| n.self_value > 0))
        .map(|n| (&*tree.frames()[n.frame as usize].function, n.self_value))
        .collect();
    leaves.sort_unstable();
    assert_eq!(leaves, [("main.inlined", 5120), ("request", 5120)]);
}

#[test]
fn one_address_with_two_names_is_two_places() {
    let mut file = heap_of_go();
    file.location[1].address = file.location[0].address;
    file.location.push(proto::Location {
        id: 8,
        mapping_id: 3,
        address: file.location[0].address,
        line: Vec::new(),
    });
    file.sample[0].location_id.push(8);
    let (p, symbols) = decode(&file.encode_to_vec()).unwrap();
    let (sample, _) = p.samples().next().unwrap();
    let lines: Vec<Vec<_>> = (p.stacks.frames(sample.stack))
        .map(|l| symbols.get(l).iter().map(|f| f.line).collect())
        .collect();
    // The nameless one is the place that has this address.
    assert_eq!(lines, [vec![12, 30], vec![41], vec![12, 30]]);
}

fn check_error(change: impl FnOnce(&mut proto::Profile), want: &str) {
    let mut file = heap_of_go();
    change(&mut file);
    let error = decode(&file.encode_to_vec()).unwrap_err().to_string();
    assert_eq!(error, want);
}

#[test]
fn errors_name_field_value_and_what_is_allowed() {
    check_error(
        |p| p.sample_type.clear(),
        "`sample_type` is empty; allowed: at least one value type",
    );
    check_error(
        |p| p.sample_type[1].name = 14,
        "`sample_type[1].type` is 14; allowed: 0 to 13, the strings of the file",
    );
    check_error(
        |p| p.string_table.clear(),
        "`sample_type[0].type` is 1; allowed: nothing: the string table is empty",
    );
    check_error(
        |p| p.string_table[0] = "x".into(),
        "`string_table[0]` is \"x\"; allowed: the empty string",
    );
    check_error(
        |p| p.sample[0].location_id[1] = 8,
        "`sample[0].location_id` is 8; allowed: the id of a location",
    );
    check_error(
        |p| p.sample[0].value.truncate(3),
        "`sample[0].value` is 3 values; allowed: 4, one for each sample_type",
    );
    check_error(
        |p| p.sample[0].label[0].key = -1,
        "`sample[0].label.key` is -1; allowed: 0 to 13, the strings of the file",
    );
    check_error(
        |p| p.location[1].mapping_id = 1,
        "`location[1].mapping_id` is 1; allowed: 0 or the id of a mapping",
    );
    check_error(
        |p| p.location[0].line[1].function_id = 6,
        "`location[0].line[1].function_id` is 6; allowed: 0 or the id of a function",
    );
    check_error(|p| p.function[0].id = 0, "`function.id` is 0; allowed: any other number");
    check_error(|p| p.location[0].id = 7, "`location.id` is 7 twice; allowed: each id once");
    let not_text = decode(&[0x32, 0, 0x32, 2, 0xc3, 0x28]).unwrap_err().to_string();
    assert!(not_text.starts_with("`string_table[1]` is bytes with invalid utf-8"), "{not_text}");
    let wrong_type = decode(&[0x08, 1]).unwrap_err().to_string();
    assert_eq!(wrong_type, "`field 1` is Varint(1); allowed: pprof's type for it");
    let cut = decode(&[0x0a, 1, 0x08, 0x32, 0]).unwrap_err().to_string();
    assert!(cut.contains("in `sample_type[0]`"), "{cut}");
    assert!(decode(&[]).is_err());
    let gzip = decode(&[0x1f, 0x8b, 8, 0]).unwrap_err().to_string();
    assert!(gzip.starts_with("the gzip data can't be unpacked"), "{gzip}");
}

#[test]
fn more_than_is_allowed_is_refused() {
    let limits = Limits::DEFAULT;
    let bytes = heap_of_go().encode_to_vec();
    for (limits, what) in [
        (Limits { bytes: 100, ..limits.clone() }, "bytes of profile"),
        (Limits { types: 3, ..limits.clone() }, "value types"),
        (Limits { strings: 13, ..limits.clone() }, "strings"),
        (Limits { string_bytes: 12, ..limits.clone() }, "bytes in one string"),
        (Limits { mappings: 0, ..limits.clone() }, "mappings"),
        (Limits { locations: 1, ..limits.clone() }, "locations"),
        (Limits { functions: 1, ..limits.clone() }, "functions"),
        (Limits { samples: 0, ..limits.clone() }, "samples"),
        (Limits { values: 3, ..limits.clone() }, "values"),
        (Limits { depth: 1, ..limits.clone() }, "locations in one stack"),
        (Limits { lines: 1, ..limits.clone() }, "lines in one location"),
        (Limits { all_lines: 2, ..limits.clone() }, "lines in all locations"),
        (Limits { frames: 2, ..limits.clone() }, "frames in all stacks"),
        (Limits { labels: 1, ..limits.clone() }, "labels in one sample"),
        (Limits { label_pairs: 1, ..limits.clone() }, "labels in all samples"),
        (Limits { message: 20, ..limits.clone() }, "bytes in one entry"),
        (Limits { copied: 50, ..limits }, "bytes of text"),
    ] {
        match decode_within(&bytes, &limits) {
            Err(DecodeError::TooLarge { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    }
    let (p, symbols) = generated(1);
    let gzipped = encode(&p, &symbols);
    for (limits, what) in [
        (Limits { bytes: 99, ..Limits::DEFAULT }, "bytes of profile"),
        (Limits { compressed: 99, ..Limits::DEFAULT }, "bytes of compressed profile"),
    ] {
        let error = decode_within(&gzipped, &limits).unwrap_err();
        assert_eq!(error, DecodeError::TooLarge { what, limit: 99 });
    }
}

/// What the fuzzer does, in small: bytes of valid files are changed, cut, doubled and moved.
#[test]
fn damaged_files_are_refused_or_make_sense() {
    let files: Vec<_> = (0..50).map(generated).map(|(p, s)| encode(&p, &s)).collect();
    let mut r = Random(42);
    let mut accepted = 0;
    for round in 0..3000 {
        let gzipped = &files[round % files.len()];
        let mut bytes = if round % 64 == 1 { gzipped.clone() } else { raw(gzipped) };
        for _ in 0..1 + r.below(4) {
            damage(&mut bytes, &mut r);
        }
        accepted += usize::from(makes_sense(&bytes, round));
    }
    println!("{accepted} of 3000 damaged files were accepted");
    assert!(accepted > 100);
}

fn damage(bytes: &mut Vec<u8>, r: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = r.below(bytes.len() as u64) as usize;
    let length = (r.below(16) as usize).min(bytes.len() - at);
    match r.below(6) {
        0 => bytes.truncate(at),
        1 => {
            bytes.drain(at..at + length);
        }
        2 => bytes.extend_from_within(at..at + length),
        3 => bytes.insert(at, r.below(256) as u8),
        4 => bytes[at] = r.below(256) as u8,
        _ => bytes[at] ^= 1 << r.below(8),
    }
}

/// Well-formed files whose fields hold what another program might write, or an attacker.
#[test]
fn strange_files_are_refused_or_make_sense() {
    let mut files: Vec<_> = (0..100)
        .map(generated)
        .map(|(p, symbols)| proto::Profile::decode(&*raw(&encode(&p, &symbols))).unwrap())
        .collect();
    files.resize(110, heap_of_go());
    let mut r = Random(43);
    let mut accepted = 0;
    for round in 0..1000 {
        let mut file = files[round % files.len()].clone();
        for _ in 0..1 + r.below(8) {
            distort(&mut file, &mut r);
        }
        accepted += usize::from(makes_sense(&file.encode_to_vec(), round));
    }
    println!("{accepted} of 1000 strange files were accepted");
    assert!(accepted > 500);
}

fn distort(file: &mut proto::Profile, r: &mut Random) {
    fn any<'a, T>(list: &'a mut [T], r: &mut Random) -> Option<&'a mut T> {
        let length = list.len() as u64;
        list.get_mut(r.below(length.max(1)) as usize)
    }
    let beyond = u64::from(r.chance(20));
    let text = r.below(file.string_table.len() as u64 + beyond) as i64;
    let address =
        [0, 0x5500_0000 + r.below(64), SYNTHETIC + r.below(3), u64::MAX][r.below(4) as usize];
    let functions = file.function.len() as u64;
    match r.below(14) {
        0 => any(&mut file.location, r).into_iter().for_each(|l| l.address = address),
        1 => file.location.iter_mut().for_each(|l| l.address = address),
        2 => any(&mut file.location, r).into_iter().for_each(|l| l.line.clear()),
        3 => any(&mut file.location, r).into_iter().for_each(|l| l.mapping_id = 0),
        4 => file.location.reverse(),
        5 => any(&mut file.location, r).into_iter().for_each(|l| {
            l.line.push(proto::Line {
                function_id: r.below(functions + 1),
                line: r.below(9) as i64 - 4,
            });
        }),
        6 => any(&mut file.function, r).into_iter().for_each(|f| f.name = text),
        7 => any(&mut file.function, r).into_iter().for_each(|f| f.system_name = text),
        8 => any(&mut file.string_table, r).into_iter().for_each(|s| s.insert(0, 'x')),
        9 => any(&mut file.sample, r).into_iter().for_each(|s| {
            let number = r.below(3) as i64 - 1;
            s.label.push(proto::Label { key: text, text: 0, number, number_unit: text });
        }),
        10 => any(&mut file.sample, r).into_iter().for_each(|s| s.location_id.reverse()),
        11 => any(&mut file.sample, r).into_iter().for_each(|s| s.value.fill(i64::MIN)),
        12 => any(&mut file.mapping, r).into_iter().for_each(|m| m.memory_start = address),
        _ => file.default_sample_type = text,
    }
}

/// Whether the file was accepted; if so, it can be drawn and written, and comes back the same.
fn makes_sense(bytes: &[u8], round: usize) -> bool {
    let Ok((p, symbols)) = decode(bytes) else { return false };
    let tree = CallTree::new(&p, &symbols, p.default_type);
    let again = encode(&p, &symbols);
    let (p2, symbols2) = decode(&again).unwrap();
    assert_eq!(shown(&p2, &symbols2), shown(&p, &symbols), "round {round}");
    assert_eq!(CallTree::new(&p2, &symbols2, p2.default_type), tree, "round {round}");
    assert_eq!(encode(&p2, &symbols2), again, "round {round}");
    true
}

/// Not a bound, a figure: what a large profile costs.
#[test]
fn large_profiles_are_written_and_read_in_a_moment() {
    let (p, symbols) = large();
    let started = std::time::Instant::now();
    let bytes = encode(&p, &symbols);
    let written = started.elapsed();
    let (p2, _) = decode(&bytes).unwrap();
    let read = started.elapsed() - written;
    println!("{} samples: {} bytes, written {written:?}, read {read:?}", p.len(), bytes.len());
    assert_eq!(p2.len(), p.len());
    assert!(written + read < Duration::from_secs(20));
}

/// Twenty thousand stacks of thirty frames over four thousand places.
fn large() -> (Profile, Symbols) {
    let mut r = Random(7);
    let mut p = Profile::cpu(Duration::from_millis(10));
    let mut symbols = Symbols::new();
    let locations: Vec<_> = (0..4000)
        .map(|i| {
            let id = p.stacks.location(Location::new(0x40_0000 + i * 16, None));
            symbols.set(id, (0..1 + i % 3).map(|_| frame(&mut r)).collect());
            id
        })
        .collect();
    for i in 0..20_000 {
        let path: Vec<_> = (0..30)
            .map(|depth| locations[(depth * 130 + r.below(1 + depth * depth / 8)) as usize])
            .collect();
        let stack = p.stacks.intern(path);
        let labels = p.labels.intern(&Labels::EMPTY.with("route", &format!("/r{}", i % 40)));
        p.add(stack, labels, &[1, 10_000_000]);
    }
    (p, symbols)
}
