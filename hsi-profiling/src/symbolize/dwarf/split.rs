//! Debug info that is spread over files: units whose functions are in a `.dwo` file or a `.dwp`
//! package, and files that share strings with another one. `addr2line` knows how to find these.
//!
//! It builds indexes of all units, which are tens of times larger than the answers; so it is asked
//! only for the addresses that need it.

use super::{Answers, Fault, Found, guarded};
use crate::symbolize::names::Names;
use addr2line::Loader;
use std::io;
use std::path::Path;

/// A reader keeps what it has parsed, so it is replaced after this many addresses. They are
/// sorted, hence few parts are parsed twice.
const ADDRESSES_PER_READER: usize = 1024;

/// Looks up `wanted`, which are places among the sorted `addresses`.
pub(super) fn read(
    (path, supplement): (&Path, Option<&Path>),
    addresses: &[u64],
    wanted: &[usize],
    names: &mut Names,
    answers: &mut Answers,
) {
    for chunk in wanted.chunks(ADDRESSES_PER_READER) {
        let reader = match open(path, supplement) {
            Ok(reader) => reader,
            Err(fault) => return answers.fail(fault, 1),
        };
        answers.readers += 1;
        for index in chunk {
            let Some(address) = addresses.get(*index) else { continue };
            match guarded(|| find(&reader, *address, names)) {
                Some(Ok(found)) => answers.set(*index, found),
                Some(Err(why)) => answers.fail(Fault::Unsound(why), 1),
                // It must not be asked again.
                None => return answers.fail(Fault::Panic, 1),
            }
        }
    }
}

fn open(path: &Path, supplement: Option<&Path>) -> Result<Loader, Fault> {
    match guarded(|| Loader::new_with_sup(path, supplement)).ok_or(Fault::Panic)? {
        Ok(loader) => Ok(loader),
        Err(error) if error.is::<io::Error>() => Err(Fault::Passing(error.to_string())),
        Err(error) => Err(Fault::Unsound(error.to_string())),
    }
}

fn find(reader: &Loader, address: u64, names: &mut Names) -> Result<Found, String> {
    let mut found = Found::default();
    let mut iter = reader.find_frames(address).map_err(|e| e.to_string())?;
    let mut language = None;
    while let Some(frame) = iter.next().map_err(|e| e.to_string())? {
        let place = frame.location.and_then(|l| Some((l.file?, l.line.filter(|l| *l > 0)?)));
        let place = place.map(|(file, line)| names.place(file, line));
        let function = frame.function.as_ref();
        language = language.or(function.and_then(|f| f.language));
        let name = function.and_then(|f| f.raw_name().ok());
        let name = name.map(|name| names.function(&name));
        if !found.add(name, place) {
            break;
        }
    }
    Ok(found.finished(language, names))
}
