//! pprof's bytes to a profile. The bytes are not trusted.

#[cfg(doc)]
use super::{MAX_COMPRESSED_BYTES, MAX_PROFILE_BYTES};
use super::{
    SYNTHETIC,
    error::{DecodeError, invalid},
    file::{File, Limits, malformed, message, unpack, within},
    is_synthetic, proto,
};
use crate::profile::{
    Frame, LabelsId, Location, LocationId, Module, ModuleId, Profile, StackId, Symbols, Timestamp,
    ValueType,
};
use prost::Message;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

/// Reads a `profile.proto`, gzip-compressed or not.
///
/// Refused are files over [`MAX_COMPRESSED_BYTES`], profiles over [`MAX_PROFILE_BYTES`] or with
/// more entries than any profiler writes, and whatever does not fit together: an index or id of
/// something that is not there, an id that is zero or there twice, a sample whose values are not
/// one for each type. Time and memory are bounded in proportion to the size of the profile.
///
/// Profiles of other programs are welcome: numbers in labels become texts with their unit, values
/// in units that are not known keep them, and names count where there are no addresses. Of what
/// the format has beyond a [`Profile`], such as frames to drop, columns and folded locations,
/// nothing is kept.
///
/// # Errors
///
/// The error names the field, what it holds and what is allowed.
pub fn decode(bytes: &[u8]) -> Result<(Profile, Symbols), DecodeError> {
    decode_within(bytes, &Limits::DEFAULT)
}

pub(super) fn decode_within(
    bytes: &[u8],
    limits: &Limits,
) -> Result<(Profile, Symbols), DecodeError> {
    let raw = unpack(bytes, limits)?;
    let file = File::new(&raw, limits)?;
    Reader::new(&file, limits)?.read()
}

/// Things by the ids that a file gives them. Sorted rather than hashed: the ids are a stranger's,
/// and as a rule they are sorted already.
struct Ids<T>(Vec<(u64, T)>);

impl<T> Ids<T> {
    fn new(mut entries: Vec<(u64, T)>, field: &str) -> Result<Self, DecodeError> {
        entries.sort_by_key(|(id, _)| *id);
        let name = || format!("{field}.id");
        if entries.first().is_some_and(|(id, _)| *id == 0) {
            return Err(invalid(name(), 0, "any other number"));
        }
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(invalid(name(), format!("{} twice", twice[0].0), "each id once"));
        }
        Ok(Self(entries))
    }

    fn get(&self, id: u64) -> Option<&T> {
        // Most files number from 1 without a gap.
        let guess = usize::try_from(id).unwrap_or(usize::MAX).wrapping_sub(1);
        let at = match self.0.get(guess) {
            Some((there, _)) if *there == id => guess,
            _ => self.0.binary_search_by_key(&id, |(there, _)| *there).ok()?,
        };
        Some(&self.0[at].1)
    }
}

struct Reader<'a> {
    file: &'a File<'a>,
    limits: &'a Limits,
    profile: Profile,
    symbols: Symbols,
    copied: usize,
    frames: usize,
    label_pairs: usize,
}

impl<'a> Reader<'a> {
    fn new(file: &'a File<'a>, limits: &'a Limits) -> Result<Self, DecodeError> {
        if file.types.is_empty() {
            return Err(invalid("sample_type".into(), "empty", "at least one value type"));
        }
        let none = ValueType::new("", "".into());
        let profile = Profile::new(Vec::new(), none, file.period);
        let symbols = Symbols::new();
        Ok(Self { file, limits, profile, symbols, copied: 0, frames: 0, label_pairs: 0 })
    }

    fn read(mut self) -> Result<(Profile, Symbols), DecodeError> {
        self.header()?;
        let mappings = self.mappings()?;
        let functions = self.functions()?;
        let locations = self.locations(&mappings, &functions)?;
        self.samples(&locations)?;
        Ok((self.profile, self.symbols))
    }

    fn header(&mut self) -> Result<(), DecodeError> {
        let mut types = Vec::with_capacity(self.file.types.len());
        for (i, bytes) in self.file.types.iter().enumerate() {
            types.push(self.value_type(bytes, "sample_type", i)?);
        }
        if let Some(bytes) = self.file.period_type {
            self.profile.period_type = self.value_type(bytes, "period_type", 0)?;
        }
        let default = self.text(self.file.default_type, || "default_sample_type".into())?;
        // Without one, pprof shows the last type.
        self.profile.default_type =
            types.iter().position(|t| t.name() == &**default).unwrap_or(types.len() - 1);
        self.profile.types = types;
        self.profile.start = Timestamp::from_unix_nanos(self.file.time_nanos);
        self.profile.duration =
            Duration::from_nanos(u64::try_from(self.file.duration_nanos).unwrap_or(0));
        for (i, comment) in self.file.comments.iter().enumerate() {
            let comment = self.text(*comment, || format!("comment[{i}]"))?;
            let comment = self.copy(comment)?;
            self.profile.comments.push(comment);
        }
        Ok(())
    }

    fn value_type(
        &mut self,
        bytes: &[u8],
        field: &'static str,
        i: usize,
    ) -> Result<ValueType, DecodeError> {
        let found: proto::ValueType = message(bytes, field, i)?;
        let name = self.text(found.name, || format!("{field}[{i}].type"))?;
        let unit = self.text(found.unit, || format!("{field}[{i}].unit"))?;
        self.copied += unit.len();
        Ok(ValueType::new(self.copy(name)?, (&**unit).into()))
    }

    fn mappings(&mut self) -> Result<Ids<ModuleId>, DecodeError> {
        let mut ids = Vec::with_capacity(self.file.mappings.len());
        for (i, bytes) in self.file.mappings.iter().enumerate() {
            let found: proto::Mapping = message(bytes, "mapping", i)?;
            let module = Module {
                path: self.text(found.filename, || format!("mapping[{i}].filename"))?.clone(),
                build_id: self.text(found.build_id, || format!("mapping[{i}].build_id"))?.clone(),
                start: found.memory_start,
                end: found.memory_limit,
                file_offset: found.file_offset,
                // Offsets are then offsets in the file, the best that can be had from here.
                bias: found.memory_start.wrapping_sub(found.file_offset),
            };
            ids.push((found.id, self.profile.stacks.module(&Arc::new(module))));
        }
        Ids::new(ids, "mapping")
    }

    fn functions(&mut self) -> Result<Ids<Frame>, DecodeError> {
        let mut ids = Vec::with_capacity(self.file.functions.len());
        for (i, bytes) in self.file.functions.iter().enumerate() {
            let found: proto::Function = message(bytes, "function", i)?;
            let name = self.text(found.name, || format!("function[{i}].name"))?;
            let system = self.text(found.system_name, || format!("function[{i}].system_name"))?;
            let file = self.text(found.filename, || format!("function[{i}].filename"))?;
            let shown = if name.is_empty() { system } else { name };
            let mut frame =
                Frame::new(if shown.is_empty() { "[unknown]".into() } else { Arc::clone(shown) });
            if !system.is_empty() && frame.function != *system {
                frame.system_name = Arc::clone(system);
            }
            ids.push((found.id, frame.at(Arc::clone(file), 0)));
        }
        Ids::new(ids, "function")
    }

    fn locations(
        &mut self,
        mappings: &Ids<ModuleId>,
        functions: &Ids<Frame>,
    ) -> Result<Ids<LocationId>, DecodeError> {
        let mut ids = Vec::with_capacity(self.file.locations.len());
        let mut total = 0;
        for (i, bytes) in self.file.locations.iter().enumerate() {
            let found: proto::Location = message(bytes, "location", i)?;
            within(found.line.len(), self.limits.lines, "lines in one location")?;
            total += found.line.len();
            within(total, self.limits.all_lines, "lines in all locations")?;
            let module = match found.mapping_id {
                0 => None,
                id => Some(*mappings.get(id).ok_or_else(|| {
                    invalid(format!("location[{i}].mapping_id"), id, "0 or the id of a mapping")
                })?),
            };
            let mut frames = Vec::with_capacity(found.line.len());
            for (j, line) in found.line.iter().enumerate().filter(|(_, l)| l.function_id != 0) {
                let frame = functions.get(line.function_id).ok_or_else(|| {
                    let field = format!("location[{i}].line[{j}].function_id");
                    invalid(field, line.function_id, "0 or the id of a function")
                })?;
                frames.push(Frame { line: u32::try_from(line.line).unwrap_or(0), ..frame.clone() });
            }
            ids.push((found.id, self.location(found.address, module, frames)));
        }
        Ids::new(ids, "location")
    }

    /// The location with this address and these names. Where the address is missing, or belongs to
    /// a place with other names, one is made from the names: so the same place has the same
    /// address in every file.
    fn location(
        &mut self,
        address: u64,
        module: Option<ModuleId>,
        frames: Vec<Frame>,
    ) -> LocationId {
        let address = if is_synthetic(address) { 0 } else { address };
        if frames.is_empty() {
            return self.profile.stacks.location(Location::new(address, module));
        }
        let frames: Arc<[Frame]> = frames.into();
        let mut candidate = if address == 0 { made_up(&frames) } else { address };
        loop {
            let id = self.profile.stacks.location(Location::new(candidate, module));
            let known = self.symbols.get(id);
            if known.is_empty() {
                self.symbols.set(id, frames);
                return id;
            }
            if *known == *frames {
                return id;
            }
            candidate = if is_synthetic(candidate) {
                SYNTHETIC | (candidate + 1) & !(0xffff << 48)
            } else {
                made_up(&frames)
            };
        }
    }

    fn samples(&mut self, locations: &Ids<LocationId>) -> Result<(), DecodeError> {
        let width = self.profile.types.len();
        within(self.file.samples.len() * width, self.limits.values, "values")?;
        let mut found = proto::Sample::default();
        for (i, bytes) in self.file.samples.iter().enumerate() {
            found.clear();
            found.merge(*bytes).map_err(|e| malformed("sample", i, &e))?;
            if found.value.len() != width {
                let field = format!("sample[{i}].value");
                let value = format!("{} values", found.value.len());
                return Err(invalid(field, value, &format!("{width}, one for each sample_type")));
            }
            within(found.location_id.len(), self.limits.depth, "locations in one stack")?;
            let mut stack = StackId::EMPTY;
            for id in found.location_id.iter().rev() {
                let location = *locations.get(*id).ok_or_else(|| {
                    invalid(format!("sample[{i}].location_id"), id, "the id of a location")
                })?;
                let nodes = self.profile.stacks.len();
                stack = self.profile.stacks.push(stack, location);
                if self.profile.stacks.len() > nodes {
                    self.frames += self.symbols.get(location).len().max(1);
                }
            }
            within(self.frames, self.limits.frames, "frames in all stacks")?;
            let labels = self.labels(&found.label, i)?;
            self.profile.add(stack, labels, &found.value);
        }
        Ok(())
    }

    fn labels(&mut self, found: &[proto::Label], i: usize) -> Result<LabelsId, DecodeError> {
        if found.is_empty() {
            return Ok(LabelsId::EMPTY);
        }
        within(found.len(), self.limits.labels, "labels in one sample")?;
        let mut pairs = Vec::with_capacity(found.len());
        for label in found {
            let key = self.text(label.key, || format!("sample[{i}].label.key"))?;
            let text = self.text(label.text, || format!("sample[{i}].label.str"))?;
            let unit = self.text(label.number_unit, || format!("sample[{i}].label.num_unit"))?;
            let value = if label.text != 0 {
                Arc::clone(text)
            } else {
                let number = label.number;
                self.copied += 20 + unit.len();
                within(self.copied, self.limits.copied, "bytes of text")?;
                format!("{number} {unit}").trim_end().into()
            };
            if !key.is_empty() && !value.is_empty() {
                pairs.push((Arc::clone(key), value));
            }
        }
        let sets = self.profile.labels.len();
        let count = pairs.len();
        let id = self.profile.labels.intern(&pairs.into_iter().collect());
        if self.profile.labels.len() > sets {
            self.label_pairs += count;
            within(self.label_pairs, self.limits.label_pairs, "labels in all samples")?;
        }
        Ok(id)
    }

    fn text(&self, at: i64, field: impl Fn() -> String) -> Result<&'a Arc<str>, DecodeError> {
        let strings = &self.file.strings;
        usize::try_from(at).ok().and_then(|i| strings.get(i)).ok_or_else(|| {
            let allowed = match strings.len() {
                0 => "nothing: the string table is empty".into(),
                n => format!("0 to {}, the strings of the file", n - 1),
            };
            invalid(field(), at, &allowed)
        })
    }

    fn copy(&mut self, text: &str) -> Result<String, DecodeError> {
        self.copied += text.len();
        within(self.copied, self.limits.copied, "bytes of text")?;
        Ok(text.to_owned())
    }
}

fn made_up(frames: &[Frame]) -> u64 {
    let mut hasher = DefaultHasher::new();
    frames.hash(&mut hasher);
    SYNTHETIC | hasher.finish() & !(0xffff << 48)
}
