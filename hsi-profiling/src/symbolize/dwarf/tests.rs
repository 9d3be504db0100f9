//! The pass against addr2line on this very program, and against debug info that was made to hurt.

use super::*;
use crate::profile::Frame;
use addr2line::Loader;
use object::{Object, ObjectSection};

const EXE: &str = "/proc/self/exe";

/// The function by the name that the object has for it, and the place.
type Named = (String, String, u32);

fn named(frame: &Frame) -> Named {
    let name = if frame.system_name.is_empty() { &frame.function } else { &frame.system_name };
    (name.to_string(), frame.file.to_string(), frame.line)
}

/// What addr2line says: the frames that have a name, and the place of the last one that has none.
fn expected(loader: &Loader, address: u64) -> (Vec<Named>, Option<(String, u32)>) {
    let (mut frames, mut nameless) = (Vec::new(), None);
    let mut iter = loader.find_frames(address).unwrap();
    while let Some(frame) = iter.next().unwrap() {
        let place = frame.location.and_then(|l| Some((l.file?.to_owned(), l.line?)));
        match frame.function {
            Some(function) => {
                let (file, line) = place.unwrap_or_default();
                frames.push((function.raw_name().unwrap().into_owned(), file, line));
            }
            None => nameless = place,
        }
    }
    (frames, nameless)
}

fn spread(count: u64) -> Vec<u64> {
    let bytes = std::fs::read(EXE).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    (0..count).map(|i| text.address() + text.size() * i / count).collect()
}

#[test]
fn this_program_is_named_as_addr2line_names_it() {
    let loader = Loader::new(EXE).unwrap();
    let addresses = spread(6000);
    let mut names = Names::new();
    let answers = read(Path::new(EXE), None, &addresses, &mut names);
    assert!(answers.fault.is_none(), "{:?}", answers.fault);
    assert_eq!((answers.found.len(), answers.readers), (addresses.len(), 1));
    let (mut inlined, mut lines) = (0, 0);
    for (address, found) in addresses.iter().zip(&answers.found) {
        let frames: Vec<Named> = found.frames.iter().map(|d| named(&names.frame(*d))).collect();
        let (want, nameless) = expected(&loader, *address);
        assert_eq!(frames, want, "{address:#x}");
        let function = names.function("");
        let place = found.place.map(|_| names.frame(Draft { function, place: found.place }));
        assert_eq!(place.map(|f| (f.file.to_string(), f.line)), nameless, "{address:#x}");
        inlined += usize::from(frames.len() > 1);
        lines += usize::from(frames.iter().any(|(_, _, line)| *line > 0));
    }
    assert!(inlined > 500 && lines > 4000, "{inlined} inlined, {lines} with lines: few to compare");
}

#[test]
fn how_many_are_asked_for_at_once_changes_nothing() {
    let addresses = spread(300);
    let mut names = Names::new();
    let all = read(Path::new(EXE), None, &addresses, &mut names).found;
    for (i, found) in all.iter().enumerate().step_by(60) {
        let alone = read(Path::new(EXE), None, &addresses[i..=i], &mut names).found.remove(0);
        let mut frames = |found: &Found| -> Vec<Named> {
            found.frames.iter().map(|d| named(&names.frame(*d))).collect()
        };
        assert_eq!(frames(found), frames(&alone));
    }
}

#[test]
fn what_cannot_be_opened_is_a_fault_that_may_pass() {
    let answers = read(Path::new("/no/such/file"), None, &[1, 2], &mut Names::new());
    assert!(matches!(answers.fault, Some(Fault::Passing(_))));
    assert_eq!((answers.found.len(), answers.failed, answers.readers), (2, 1, 0));
}

/// Each has its number, its tag, whether it has children, and its attributes with their forms.
const ABBREVIATIONS: [&[u8]; 5] = [
    // A unit: its address and its length.
    &[1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0, 0],
    // A function: its address, its length, its name.
    &[2, 0x2e, 1, 0x11, 0x01, 0x12, 0x07, 0x03, 0x08, 0, 0],
    // An inlined one: its origin in the unit, its address, its length.
    &[3, 0x1d, 1, 0x31, 0x13, 0x11, 0x01, 0x12, 0x07, 0, 0],
    // One whose origin is anywhere in the file.
    &[4, 0x1d, 0, 0x31, 0x10, 0x11, 0x01, 0x12, 0x07, 0, 0],
    &[0],
];

/// The range of all entries: an address and a length.
fn range() -> Vec<u8> {
    [0x1000u64.to_ne_bytes(), 0x100u64.to_ne_bytes()].concat()
}

/// A unit of DWARF 4 that covers what `range` does and has these entries.
fn unit(entries: &[u8]) -> Vec<u8> {
    let body = [&[4, 0, 0, 0, 0, 0, 8, 1], &*range(), entries].concat();
    [&(body.len() as u32).to_ne_bytes()[..], &body].concat()
}

/// Where the entries of a unit begin.
const ENTRIES: u32 = 11 + 17;

fn hit(info: &[u8], names: &mut Names) -> (Vec<Option<FunctionId>>, Option<FunctionId>, u64) {
    let abbreviations = ABBREVIATIONS.concat();
    let dwarf = gimli::Dwarf::load(|id| {
        Ok::<_, gimli::Error>(EndianSlice::new(
            match id {
                gimli::SectionId::DebugInfo => info,
                gimli::SectionId::DebugAbbrev => &abbreviations,
                _ => &[],
            },
            NativeEndian,
        ))
    });
    let mut info = Info::new(dwarf.unwrap());
    let header = info.dwarf.units().next().unwrap().unwrap();
    let root = info.root(header).unwrap();
    let mut walk = Walk::new(&mut info, &root.unit, &[0x1010], names);
    walk.run().unwrap();
    let failed = walk.nameless.map_or(0, |(_, count)| count);
    let (hit, entries) = (walk.hits[0].as_ref().unwrap(), walk.entries);
    let inlined = hit.chain().into_iter().map(|index| entries[index].name).collect();
    (inlined, entries[hit.function()].name, failed)
}

#[test]
fn what_is_nested_without_end_has_one_and_so_has_a_circle_of_names() {
    let mut entries = [&[2], &*range(), b"outer\0"].concat();
    let first = ENTRIES + entries.len() as u32;
    for i in 0..20_000u32 {
        // The first two have each other as their origin, and the rest the first.
        let origin = if i == 0 { first + 21 } else { first };
        entries.extend([&[3], &origin.to_ne_bytes()[..], &*range()].concat());
    }
    let mut names = Names::new();
    let (inlined, name, failed) = hit(&unit(&entries), &mut names);
    assert_eq!(inlined, vec![None; MAX_DEPTH]);
    assert_eq!(
        name.map(|id| names.frame(Draft { function: id, place: None }).function),
        Some("outer".into())
    );
    assert_eq!(failed, 0);
}

#[test]
fn a_name_may_be_in_another_unit_or_nowhere() {
    let inner = |origin: u32| [&[4], &origin.to_ne_bytes()[..], &*range()].concat();
    let outer = [&[2], &*range(), b"outer\0"].concat();
    let length = unit(&[&*outer, &inner(0)].concat()).len() as u32;
    let other = unit(&[&[2], &*range(), b"other\0"].concat());
    for (origin, want, failures) in [
        (ENTRIES, Some("outer"), 0),
        (length + ENTRIES, Some("other"), 0),
        (0, None, 1),
        (length + 3, None, 1),
        (length + other.len() as u32, None, 1),
        (u32::MAX, None, 1),
    ] {
        let info = [unit(&[&*outer, &inner(origin)].concat()), other.clone()].concat();
        let mut names = Names::new();
        let (inlined, _, failed) = hit(&info, &mut names);
        let name = inlined[0].map(|id| names.frame(Draft { function: id, place: None }).function);
        assert_eq!((name.as_deref(), failed), (want, failures), "{origin}");
    }
}
