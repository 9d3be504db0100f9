//! Compiles a module's `.eh_frame` into an [`UnwindTable`], off the signal handler.
//!
//! The parser is gimli; what is ours is the choice of rules that the walker does, see
//! [`Rule`]. Everything else becomes [`Rule::Unsupported`], which ends a walk and is counted.

use crate::capture::{Base, Rule, UnwindTable};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, NativeEndian, Operation, Register,
    RegisterRule, UnwindContext, UnwindSection, UnwindTableRow,
};
use std::ops::Range;

/// What became of a module's unwind information.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// The table.
    pub(crate) table: UnwindTable,
    /// Functions whose information could not be parsed.
    pub(crate) broken: u64,
}

/// Compiles the `.eh_frame` that stands at `address` in memory, for the code in `text`.
///
/// Any bytes give a table: what can't be parsed is left out and counted.
pub(crate) fn compile(text: Range<u64>, address: u64, bytes: &[u8]) -> Compiled {
    let mut section = EhFrame::from(EndianSlice::new(bytes, NativeEndian));
    // The instruction for signed return addresses has a number that others use otherwise.
    section.set_vendor(arch::VENDOR);
    let bases = BaseAddresses::default().set_eh_frame(address).set_text(text.start);
    let mut rows = Rows { text, rows: Vec::new() };
    let mut context = UnwindContext::new();
    let mut broken = 0;
    let mut entries = section.entries(&bases);
    loop {
        let entry = match entries.next() {
            Ok(Some(CieOrFde::Fde(partial))) => partial,
            Ok(Some(CieOrFde::Cie(_))) => continue,
            Ok(None) => break,
            // What follows a torn entry can't be found any more.
            Err(_) => {
                broken += 1;
                break;
            }
        };
        let added = entry
            .parse(EhFrame::cie_from_offset)
            .and_then(|function| rows.add(&section, &bases, &mut context, &function));
        if added.is_err() {
            broken += 1;
        }
        if rows.rows.len() > MOST_ROWS {
            broken += 1;
            break;
        }
    }
    Compiled { table: rows.into_table(), broken }
}

/// A bound for what a hostile or broken section may cost: 16 million rows are 64 MB, ten times
/// what the largest known Rust program has.
const MOST_ROWS: usize = 1 << 24;

type Section<'a> = EhFrame<EndianSlice<'a, NativeEndian>>;
type Function<'a> = gimli::FrameDescriptionEntry<EndianSlice<'a, NativeEndian>>;

struct Rows {
    text: Range<u64>,
    /// Start and rule; a [`Rule::Missing`] where a function ends. In the order of the section.
    rows: Vec<(u64, Rule)>,
}

impl Rows {
    fn add(
        &mut self,
        section: &Section<'_>,
        bases: &BaseAddresses,
        context: &mut UnwindContext<usize>,
        function: &Function<'_>,
    ) -> gimli::Result<()> {
        let (start, end) = (function.initial_address(), function.end_address());
        // A function of length zero, or outside the text, was discarded by the linker.
        if start >= end || !self.text.contains(&start) || end > self.text.end {
            return Ok(());
        }
        let before = self.rows.len();
        if function.is_signal_trampoline() {
            self.rows.push((start, Rule::SignalFrame));
        } else {
            let ra = function.cie().return_address_register();
            let mut table = function.rows(section, bases, context)?;
            let mut parsed = Ok(());
            loop {
                match table.next_row() {
                    Ok(Some(row)) if (start..end).contains(&row.start_address()) => {
                        self.rows.push((row.start_address(), rule(row, ra, section)));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        parsed = Err(error);
                        break;
                    }
                }
            }
            if parsed.is_err() {
                // Half a function's rows would rule the rest of it.
                self.rows.truncate(before);
                return parsed;
            }
        }
        self.rows.push((end, Rule::Missing));
        Ok(())
    }

    fn into_table(mut self) -> UnwindTable {
        // Stable, and ends sort before the start that takes over at the same address, so that
        // the later row, which wins, is the start.
        self.rows.sort_by_key(|(start, rule)| (*start, *rule != Rule::Missing));
        UnwindTable::new(self.text, self.rows)
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use gimli::{Register, Vendor, X86_64};
    pub(super) const VENDOR: Vendor = Vendor::Default;
    pub(super) const SP: Register = X86_64::RSP;
    pub(super) const FP: Register = X86_64::RBP;
    /// A call leaves the return address on the stack, so it always has a place there.
    pub(super) const RA_IN_REGISTER: bool = false;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use gimli::{AArch64, Register, Vendor};
    pub(super) const VENDOR: Vendor = Vendor::AArch64;
    pub(super) const SP: Register = AArch64::SP;
    pub(super) const FP: Register = AArch64::X29;
    /// A call leaves the return address in x30, where it stays in a function that calls nobody.
    pub(super) const RA_IN_REGISTER: bool = true;
}

fn rule(row: &UnwindTableRow<usize>, ra: Register, section: &Section<'_>) -> Rule {
    let fp_rule = row.register(arch::FP);
    let ra_rule = row.register(ra);
    if matches!(ra_rule, Some(RegisterRule::Undefined)) {
        return Rule::Outermost;
    }
    let (register, offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => (*register, *offset),
        CfaRule::Expression(expression) => {
            return expression
                .get(section)
                .ok()
                .and_then(|code| special(code, fp_rule.as_ref(), section))
                .unwrap_or(Rule::Unsupported);
        }
    };
    let base = match register {
        r if r == arch::SP => Base::Sp,
        r if r == arch::FP => Base::Fp,
        _ => return Rule::Unsupported,
    };
    let Some(fp) = saved(fp_rule.as_ref()) else { return Rule::Unsupported };
    let ra = match ra_rule {
        None | Some(RegisterRule::SameValue) if arch::RA_IN_REGISTER => None,
        Some(RegisterRule::Offset(offset)) => match i32::try_from(offset) {
            Ok(offset) => Some(offset),
            Err(_) => return Rule::Unsupported,
        },
        _ => return Rule::Unsupported,
    };
    match i32::try_from(offset) {
        Ok(offset) => Rule::Frame { base, offset, fp, ra },
        Err(_) => Rule::Unsupported,
    }
}

/// Where a register was saved: `Some(None)` where it was not touched, `None` where that is more
/// than an offset from the CFA. An undefined one is passed on untouched too: the walk goes on,
/// and a caller that needs the value will say so by its own rule.
#[expect(clippy::option_option, reason = "the outer one says whether the rule can be done at all")]
fn saved(rule: Option<&RegisterRule<usize>>) -> Option<Option<i32>> {
    match rule {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some(None),
        Some(RegisterRule::Offset(offset)) => i32::try_from(*offset).ok().map(Some),
        _ => None,
    }
}

type Code<'a> = gimli::Expression<EndianSlice<'a, NativeEndian>>;

/// The two expressions that compilers and linkers for x86_64 write.
fn special(
    code: Code<'_>,
    fp_rule: Option<&RegisterRule<usize>>,
    section: &Section<'_>,
) -> Option<Rule> {
    if arch::RA_IN_REGISTER {
        return None;
    }
    let encoding = encoding();
    let mut operations = code.operations(encoding);
    let mut all = Vec::new();
    while let Some(operation) = operations.next().ok()? {
        all.push(operation);
        if all.len() > 12 {
            return None;
        }
    }
    match &all[..] {
        // *(rbp + offset): a realigned frame, whose rbp is saved at *rbp.
        [
            Operation::RegisterOffset { register, offset, .. },
            Operation::Deref { space: false, .. },
        ] if *register == arch::FP => {
            let Some(RegisterRule::Expression(at)) = fp_rule else { return None };
            let mut saved = at.get(section).ok()?.operations(encoding);
            match (saved.next().ok()?, saved.next().ok()?) {
                (Some(Operation::RegisterOffset { register, offset: 0, .. }), None)
                    if register == arch::FP =>
                {
                    Some(Rule::Realigned { offset: i32::try_from(*offset).ok()? })
                }
                _ => None,
            }
        }
        // rsp + 8 + (((rip & 15) >= pushed_at) << 3): a stub of the procedure linkage table.
        [
            Operation::RegisterOffset { register, offset: 8, .. },
            Operation::RegisterOffset { offset: 0, .. },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant { value: pushed_at },
            Operation::Ge,
            Operation::UnsignedConstant { value: 3 },
            Operation::Shl,
            Operation::Plus,
        ] if *register == arch::SP => {
            Some(Rule::LinkageStub { pushed_at: u8::try_from(*pushed_at).ok()? })
        }
        _ => None,
    }
}

fn encoding() -> gimli::Encoding {
    gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    fn this_program() -> (Range<u64>, u64, Vec<u8>) {
        let here = this_program as *const () as u64;
        let module = sys::loaded_modules(|m| m.text.contains(&here))
            .into_iter()
            .find(|m| m.text.contains(&here))
            .unwrap();
        let (address, bytes) = module.eh_frame.unwrap();
        (module.text, address, bytes)
    }

    #[test]
    fn this_program_compiles_nearly_without_a_gap() {
        let (text, address, bytes) = this_program();
        let compiled = compile(text.clone(), address, &bytes);
        let here = this_program_compiles_nearly_without_a_gap as *const () as u64;
        assert!(matches!(
            *compiled.table.rule(here),
            Rule::Frame { base: Base::Sp, offset: 8, .. }
        ));
        assert_eq!(compiled.broken, 0);
        let all: Vec<_> = text.step_by(16).map(|address| *compiled.table.rule(address)).collect();
        let share = |want: fn(&Rule) -> bool| {
            all.iter().filter(|rule| want(rule)).count() as f64 / all.len() as f64
        };
        let (missing, unsupported) =
            (share(|r| *r == Rule::Missing), share(|r| *r == Rule::Unsupported));
        assert!(missing < 0.05 && unsupported < 0.001, "{missing} {unsupported}");
    }

    #[test]
    fn every_prefix_and_any_flipped_byte_gives_a_table() {
        let (text, address, mut bytes) = this_program();
        bytes.truncate(20_000);
        for length in (0..bytes.len()).step_by(97) {
            compile(text.clone(), address, &bytes[..length]);
        }
        let whole = compile(text.clone(), address, &bytes).table.len();
        let mut changed = 0;
        for at in (0..bytes.len()).step_by(53) {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let compiled = compile(text.clone(), address, &broken);
            changed += u32::from(compiled.table.len() != whole || compiled.broken != 0);
        }
        assert!(changed > 50, "flipping bytes changed next to nothing: {changed}");
    }

    #[test]
    fn nothing_at_all_is_a_table_too() {
        let compiled = compile(0x1000..0x2000, 0x5000, &[]);
        assert_eq!((compiled.table.len(), compiled.broken), (0, 0));
        let compiled = compile(0..u64::MAX, u64::MAX, &[0xff; 64]);
        assert_eq!(compiled.table.len(), 0);
    }
}
