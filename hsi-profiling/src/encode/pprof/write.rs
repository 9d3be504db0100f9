//! A profile to pprof's bytes.

use super::{is_synthetic, proto};
use crate::profile::{
    Frame, LabelsId, Location, LocationId, Module, ModuleId, Profile, Symbols, ValueType,
};
use flate2::{Compression, GzBuilder};
use prost::Message;
use std::{collections::HashMap, io::Write, sync::Arc};

/// The profile as a gzip-compressed `profile.proto`.
///
/// Only what a sample refers to is written, in the order of the samples, so equal profiles give
/// equal bytes. With an empty `symbols` the file holds addresses alone. A mapping's `has_…` flags
/// say that there is such a fact for at least one of its locations: then its names were looked up,
/// and a reader need not do it again. A label without a value is left out, since the format has no
/// such thing.
#[must_use]
pub fn encode(profile: &Profile, symbols: &Symbols) -> Vec<u8> {
    compress(&Writer::new(profile, symbols).write().encode_to_vec())
}

fn compress(raw: &[u8]) -> Vec<u8> {
    // No file name and no time of day: the bytes depend on the profile alone.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::new(LEVEL));
    // Writing to memory can't fail.
    gzip.write_all(raw).and_then(|()| gzip.finish()).unwrap_or_default()
}

/// Half the time of gzip's default level, for a file that is a few percent larger.
const LEVEL: u32 = 4;

struct Writer<'a> {
    profile: &'a Profile,
    symbols: &'a Symbols,
    out: proto::Profile,
    strings: HashMap<Arc<str>, i64>,
    functions: HashMap<[i64; 3], u64>,
    location_ids: Vec<u64>,
    /// The mapping of each module that is used, not numbered yet.
    mappings: Vec<Option<proto::Mapping>>,
}

impl<'a> Writer<'a> {
    fn new(profile: &'a Profile, symbols: &'a Symbols) -> Self {
        let out = proto::Profile { string_table: vec![String::new()], ..Default::default() };
        Self {
            profile,
            symbols,
            out,
            strings: HashMap::from([("".into(), 0)]),
            functions: HashMap::new(),
            location_ids: vec![0; profile.stacks.locations().len()],
            mappings: vec![None; profile.stacks.modules().len()],
        }
    }

    fn write(mut self) -> proto::Profile {
        let profile = self.profile;
        self.out.sample_type = profile.types.iter().map(|t| self.value_type(t)).collect();
        self.out.default_sample_type =
            self.out.sample_type.get(profile.default_type).map_or(0, |t| t.name);
        self.out.period_type = Some(self.value_type(&profile.period_type));
        self.out.period = profile.period;
        self.out.time_nanos = profile.start.unix_nanos();
        self.out.duration_nanos = i64::try_from(profile.duration.as_nanos()).unwrap_or(i64::MAX);
        self.out.comment = profile.comments.iter().map(|c| self.string(c)).collect();
        self.samples();
        self.number_mappings();
        self.out
    }

    fn samples(&mut self) {
        let profile = self.profile;
        let mut label_sets: Vec<Option<Vec<proto::Label>>> = vec![None; profile.labels.len()];
        self.out.sample.reserve(profile.len());
        for (sample, values) in profile.samples() {
            let stack = profile.stacks.frames(sample.stack);
            let location_id = stack.map(|l| self.location(l)).collect();
            let label = match label_sets.get_mut(sample.labels.index()) {
                Some(Some(known)) => known.clone(),
                Some(unknown) => unknown.insert(self.labels(sample.labels)).clone(),
                None => Vec::new(),
            };
            self.out.sample.push(proto::Sample { location_id, value: values.to_vec(), label });
        }
    }

    fn labels(&mut self, id: LabelsId) -> Vec<proto::Label> {
        let labels =
            self.profile.labels.get(id).iter().filter(|(k, v)| !k.is_empty() && !v.is_empty());
        labels
            .map(|(key, value)| proto::Label {
                key: self.string(key),
                text: self.string(value),
                ..Default::default()
            })
            .collect()
    }

    fn location(&mut self, id: LocationId) -> u64 {
        match self.location_ids.get(id.index()) {
            Some(0) => {}
            Some(known) => return *known,
            // A location of another table; it has no address here.
            None => return self.push_location(Location::new(0, None), &[]),
        }
        let at = self.profile.stacks.locations()[id.index()];
        let number = self.push_location(at, self.symbols.get(id));
        self.location_ids[id.index()] = number;
        number
    }

    fn push_location(&mut self, at: Location, frames: &[Frame]) -> u64 {
        let line: Vec<_> = frames
            .iter()
            .map(|frame| proto::Line { function_id: self.function(frame), line: frame.line.into() })
            .collect();
        let mapping_id = at.module.map_or(0, |m| self.mapping(m, frames));
        let id = self.out.location.len() as u64 + 1;
        let address = if is_synthetic(at.address) { 0 } else { at.address };
        self.out.location.push(proto::Location { id, mapping_id, address, line });
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let name = self.shared_string(&frame.function);
        let system_name = if frame.system_name.is_empty() {
            name
        } else {
            self.shared_string(&frame.system_name)
        };
        let filename = self.shared_string(&frame.file);
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry([name, system_name, filename]).or_insert(next);
        if id == next {
            self.out.function.push(proto::Function { id, name, system_name, filename });
        }
        id
    }

    /// The provisional id of a module's mapping: its position in the table, from 1.
    fn mapping(&mut self, module: ModuleId, frames: &[Frame]) -> u64 {
        let Some(source) = self.profile.stacks.modules().get(module.index()) else { return 0 };
        if self.mappings[module.index()].is_none() {
            self.mappings[module.index()] = Some(self.new_mapping(source));
        }
        if let Some(mapping) = &mut self.mappings[module.index()] {
            mapping.has_functions |= !frames.is_empty();
            mapping.has_filenames |= frames.iter().any(|f| !f.file.is_empty());
            mapping.has_line_numbers |= frames.iter().any(|f| f.line != 0);
            mapping.has_inline_frames |= frames.len() > 1;
        }
        module.index() as u64 + 1
    }

    fn new_mapping(&mut self, module: &Module) -> proto::Mapping {
        proto::Mapping {
            memory_start: module.start,
            memory_limit: module.end,
            file_offset: module.file_offset,
            filename: self.shared_string(&module.path),
            build_id: self.shared_string(&module.build_id),
            ..Default::default()
        }
    }

    /// Writes the used mappings in the order of their table, where the program itself comes first,
    /// and replaces the provisional ids.
    fn number_mappings(&mut self) {
        let mut ids = vec![0; self.mappings.len() + 1];
        for (i, mapping) in self.mappings.drain(..).enumerate() {
            if let Some(mapping) = mapping {
                let id = self.out.mapping.len() as u64 + 1;
                ids[i + 1] = id;
                self.out.mapping.push(proto::Mapping { id, ..mapping });
            }
        }
        for location in &mut self.out.location {
            location.mapping_id = ids[location.mapping_id as usize];
        }
    }

    fn value_type(&mut self, value_type: &ValueType) -> proto::ValueType {
        proto::ValueType {
            name: self.string(value_type.name()),
            unit: self.string(value_type.unit().name()),
        }
    }

    fn shared_string(&mut self, text: &Arc<str>) -> i64 {
        match self.strings.get(text) {
            Some(known) => *known,
            None => self.push_string(Arc::clone(text)),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        match self.strings.get(text) {
            Some(known) => *known,
            None => self.push_string(text.into()),
        }
    }

    fn push_string(&mut self, text: Arc<str>) -> i64 {
        let at = self.out.string_table.len() as i64;
        self.out.string_table.push(text.to_string());
        self.strings.insert(text, at);
        at
    }
}
