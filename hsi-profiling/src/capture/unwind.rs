//! The walk: from the interrupted registers to the outermost caller, by table and bounded reads.
//!
//! It parses nothing, keeps nothing and allocates nothing: one lookup and one or two reads a
//! frame. The reads are bounded by the [`StackView`], so a wrong table gives a wrong stack and
//! never a fault.

use super::table::{Base, Rule, UnwindTable};
use crate::sys::{Registers, StackView};
use std::{ops::Range, sync::Arc};

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// At the outermost frame.
    Complete = 0,
    /// At the deepest frame that is kept.
    Cut = 1,
    /// In code that no unwind information covers and whose frame pointer leads nowhere.
    NoInformation = 2,
    /// At a rule that this walker does not do.
    Unsupported = 3,
    /// At an address outside the stack.
    BadAddress = 4,
}

impl End {
    /// Every way to end, by its number.
    pub(crate) const ALL: [Self; 5] =
        [Self::Complete, Self::Cut, Self::NoInformation, Self::Unsupported, Self::BadAddress];

    /// The number that travels in a record.
    pub(crate) fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::BadAddress)
    }
}

/// The tables of all modules, in order of address.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Apart from the tables, so that the search for a module touches few cache lines.
    texts: Box<[Range<u64>]>,
    tables: Box<[Arc<UnwindTable>]>,
}

impl Tables {
    /// Sorts the tables by address.
    pub(crate) fn new(mut tables: Vec<Arc<UnwindTable>>) -> Self {
        tables.sort_by_key(|table| table.text().start);
        Self {
            texts: tables.iter().map(|table| table.text().clone()).collect(),
            tables: tables.into(),
        }
    }

    /// The table of the module that an address lies in.
    #[inline]
    pub(crate) fn of(&self, address: u64) -> Option<&UnwindTable> {
        let after = self.texts.partition_point(|text| text.start <= address);
        let at = after.checked_sub(1)?;
        if address >= self.texts.get(at)?.end {
            return None;
        }
        self.tables.get(at).map(|table| &**table)
    }
}

/// Walks the stack that `registers` are in. `view` gives the readable part around a stack pointer;
/// `emit` takes each address, the interrupted one first, and says whether there is room for more.
///
/// The interrupted instruction is given as it is, a caller's as one less than the return address:
/// a call may be the last instruction of its function, or of the inlined body it belongs to.
#[inline]
pub(crate) fn walk(
    tables: &Tables,
    registers: &Registers,
    view: impl Fn(u64) -> StackView,
    mut emit: impl FnMut(u64) -> bool,
) -> End {
    let mut stack = view(registers.sp);
    let Registers { pc: mut look, mut sp, mut fp, mut lr } = *registers;
    // Each caller's frame is above the callee's, but that a leaf may have none of its own.
    let mut least = sp;
    let mut table = None::<&UnwindTable>;
    if !emit(look) {
        return End::Cut;
    }
    loop {
        stack.fetch_ahead(sp);
        let rule = match table.and_then(|table| table.find(look)) {
            Some(rule) => rule,
            None => {
                table = tables.of(look);
                table.and_then(|table| table.find(look)).unwrap_or(&Rule::Missing)
            }
        };
        // Nearly all frames are of this kind: it is here, and the rest is out of the way.
        let (pc, caller) = if let Rule::Frame { base, offset, fp: saved, ra: Some(ra) } = *rule {
            let base = match base {
                Base::Sp => sp,
                Base::Fp => fp,
            };
            let cfa = base.wrapping_add_signed(offset.into());
            if let Some(saved) = saved {
                let Some(word) = stack.read(cfa.wrapping_add_signed(saved.into())) else {
                    return End::BadAddress;
                };
                fp = word;
            }
            let Some(pc) = stack.read(cfa.wrapping_add_signed(ra.into())) else {
                return End::BadAddress;
            };
            (without_signature(pc), cfa)
        } else {
            let frame = Registers { pc: look, sp, fp, lr };
            match seldom(rule, &frame, least == sp, &mut stack, tables) {
                Step::Caller(caller) => {
                    fp = caller.fp;
                    (caller.pc, caller.sp)
                }
                // What was interrupted may have run on another stack.
                Step::Interrupted(before) => {
                    (look, sp, fp, lr) = (before.pc, before.sp, before.fp, before.lr);
                    least = sp;
                    stack = view(sp);
                    if !emit(look) {
                        return End::Cut;
                    }
                    continue;
                }
                Step::End(end) => return end,
            }
        };
        if pc == 0 {
            return End::Complete;
        }
        if caller < least {
            return End::BadAddress;
        }
        look = pc.wrapping_sub(1);
        (sp, least, lr) = (caller, caller.wrapping_add(1), 0);
        if !emit(look) {
            return End::Cut;
        }
    }
}

/// Where a rule leads.
enum Step {
    /// To the caller.
    Caller(Registers),
    /// To what a signal has interrupted.
    Interrupted(Registers),
    /// Nowhere.
    End(End),
}

/// A step by a rule that few frames have.
#[cold]
#[inline(never)]
fn seldom(
    rule: &Rule,
    frame: &Registers,
    leaf: bool,
    stack: &mut StackView,
    tables: &Tables,
) -> Step {
    let caller = match *rule {
        Rule::Frame { base, offset, fp, ra } => {
            let base = match base {
                Base::Sp => frame.sp,
                Base::Fp => frame.fp,
            };
            from_cfa(frame, stack, base.wrapping_add_signed(offset.into()), fp, ra)
        }
        Rule::Outermost => return Step::End(End::Complete),
        Rule::SignalFrame => {
            let before = interrupted(frame, stack);
            return before.map_or(Step::End(End::BadAddress), Step::Interrupted);
        }
        Rule::Realigned { offset } => {
            let cfa = stack.read(frame.fp.wrapping_add_signed(offset.into()));
            let fp = stack.read(frame.fp);
            cfa.zip(fp).and_then(|(cfa, fp)| {
                let pc = stack.read(cfa.wrapping_sub(8))?;
                Some(Registers { pc, sp: cfa, fp, lr: 0 })
            })
        }
        Rule::LinkageStub { pushed_at } => {
            let pushed = if frame.pc & 15 >= u64::from(pushed_at) { 8 } else { 0 };
            from_cfa(frame, stack, frame.sp.wrapping_add(8 + pushed), None, Some(-8))
        }
        Rule::Unsupported => return Step::End(End::Unsupported),
        Rule::Missing => {
            let caller = by_frame_pointer(frame, stack, leaf, tables);
            return caller.map_or(Step::End(End::NoInformation), Step::Caller);
        }
    };
    caller.map_or(Step::End(End::BadAddress), Step::Caller)
}

fn from_cfa(
    frame: &Registers,
    stack: &mut StackView,
    cfa: u64,
    fp: Option<i32>,
    ra: Option<i32>,
) -> Option<Registers> {
    let fp = match fp {
        Some(offset) => stack.read(cfa.wrapping_add_signed(offset.into()))?,
        None => frame.fp,
    };
    let pc = match ra {
        Some(offset) => stack.read(cfa.wrapping_add_signed(offset.into()))?,
        // Only a leaf's return address is still in its register.
        None if frame.lr == 0 => return None,
        None => frame.lr,
    };
    Some(Registers { pc: without_signature(pc), sp: cfa, fp, lr: 0 })
}

/// Code without unwind information (made at run time, assembly) may still keep a frame pointer.
/// Believed only when it leads upwards and into known code.
fn by_frame_pointer(
    frame: &Registers,
    stack: &mut StackView,
    leaf: bool,
    tables: &Tables,
) -> Option<Registers> {
    let in_code = |pc: u64| tables.of(pc.wrapping_sub(1)).is_some();
    // A leaf that has not set up its frame yet still holds the return address where the call
    // left it.
    if leaf {
        let link = if cfg!(target_arch = "aarch64") {
            Some((without_signature(frame.lr), frame.sp))
        } else {
            stack.read(frame.sp).map(|pc| (pc, frame.sp.wrapping_add(8)))
        };
        if let Some((pc, sp)) = link.filter(|(pc, _)| in_code(*pc)) {
            return Some(Registers { pc, sp, fp: frame.fp, lr: 0 });
        }
    }
    if frame.fp < frame.sp {
        return None;
    }
    let fp = stack.read(frame.fp)?;
    let pc = without_signature(stack.read(frame.fp.wrapping_add(8))?);
    // The chain ends at a frame whose caller's two words are zero.
    ((pc == 0 && fp == 0) || in_code(pc)).then_some(Registers {
        pc,
        sp: frame.fp.wrapping_add(16),
        fp,
        lr: 0,
    })
}

/// The registers that the kernel saved when it called a signal handler, from the frame that it
/// pushed; the stack pointer is at that frame.
fn interrupted(frame: &Registers, stack: &mut StackView) -> Option<Registers> {
    if cfg!(target_arch = "x86_64") {
        // ucontext_t: flags, link and stack_t are 40 bytes, then gregs r8…r15, rdi, rsi, rbp,
        // rbx, rdx, rax, rcx, rsp, rip (sys/ucontext.h).
        let registers = frame.sp.wrapping_add(40);
        let mut at = |index: u64| stack.read(registers.wrapping_add(index * 8));
        Some(Registers { fp: at(10)?, sp: at(15)?, pc: at(16)?, lr: 0 })
    } else {
        // siginfo_t is 128 bytes, then ucontext_t: 168 bytes to the saved mask's end padded to
        // 176, then fault address, x0…x30, sp, pc (asm/sigcontext.h).
        let registers = frame.sp.wrapping_add(128 + 176 + 8);
        let mut at = |index: u64| stack.read(registers.wrapping_add(index * 8));
        Some(Registers { fp: at(29)?, lr: at(30)?, sp: at(31)?, pc: at(32)? })
    }
}

/// A return address without the pointer authentication code that aarch64 may keep in its upper
/// bits: user addresses are 48 bits there.
#[inline]
fn without_signature(pc: u64) -> u64 {
    if cfg!(target_arch = "aarch64") { pc & 0x0000_ffff_ffff_ffff } else { pc }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Range<u64> = 0x10_0000..0x10_1000;

    /// A stack in this test's own memory, so that the reads are real.
    fn walked(rules: &[(u64, Rule)], stack: &[u64], pc: u64, fp: Option<usize>) -> (Vec<u64>, End) {
        let base = std::ptr::from_ref(&stack[0]).expose_provenance() as u64;
        let tables = Tables::new(vec![
            Arc::new(UnwindTable::new(TEXT, rules.iter().copied())),
            Arc::new(UnwindTable::empty(0x5000..0x6000)),
        ]);
        let at = |word: usize| base + word as u64 * 8;
        let registers = Registers { pc, sp: base, fp: fp.map_or(0, at), lr: 0 };
        let mut out = Vec::new();
        let end = walk(&tables, &registers, StackView::probing, |address| {
            out.push(address);
            out.len() < 6
        });
        (out, end)
    }

    fn sp(offset: i32) -> Rule {
        Rule::Frame { base: Base::Sp, offset, fp: None, ra: Some(-8) }
    }

    #[test]
    fn callers_are_one_less_than_the_return_address() {
        let rules = [(0x10_0000, sp(16)), (0x10_0100, sp(8)), (0x10_0200, Rule::Outermost)];
        let stack = [7, 0x10_0105, 0x10_0205, 9];
        assert_eq!(
            walked(&rules, &stack, 0x10_0004, None),
            (vec![0x10_0004, 0x10_0104, 0x10_0204], End::Complete)
        );
    }

    #[test]
    fn endless_recursion_is_cut_and_a_loop_in_the_stack_ends() {
        let stack = [0x10_0105u64; 64];
        let (addresses, end) = walked(&[(0x10_0000, sp(8))], &stack, 0x10_0001, None);
        assert_eq!((addresses.len(), end), (6, End::Cut));
        let standing = Rule::Frame { base: Base::Sp, offset: 0, fp: None, ra: Some(0) };
        let (addresses, end) = walked(&[(0x10_0000, standing)], &stack, 0x10_0001, None);
        assert_eq!((addresses.len(), end), (2, End::BadAddress));
    }

    #[test]
    fn code_without_information_is_walked_by_frame_pointer_into_known_code_only() {
        let rules = [(0x10_0000, Rule::Outermost)];
        let mut stack = [0u64; 8];
        stack[5] = 0x10_0010;
        let (addresses, end) = walked(&rules, &stack, 0x5010, Some(4));
        assert_eq!((addresses, end), (vec![0x5010, 0x10_000f], End::Complete));
        stack[5] = 0x7777;
        let (addresses, end) = walked(&rules, &stack, 0x5010, Some(4));
        assert_eq!((addresses, end), (vec![0x5010], End::NoInformation));
    }

    #[test]
    fn a_rule_that_leads_out_of_the_stack_ends_the_walk() {
        let far = Rule::Frame { base: Base::Sp, offset: i32::MAX, fp: None, ra: Some(-8) };
        let (_, end) = walked(&[(0x10_0000, far)], &[0; 4], 0x10_0000, None);
        assert_eq!(end, End::BadAddress);
        let (_, end) = walked(&[(0x10_0000, Rule::Unsupported)], &[0; 4], 0x10_0000, None);
        assert_eq!(end, End::Unsupported);
    }

    #[test]
    fn a_module_is_found_by_any_of_its_addresses() {
        let table = |range: Range<u64>| Arc::new(UnwindTable::empty(range));
        let tables = Tables::new(vec![table(50..60), table(10..20)]);
        for (address, found) in [(9, false), (10, true), (19, true), (20, false), (55, true)] {
            assert_eq!(tables.of(address).is_some(), found, "{address}");
        }
    }
}
