//! Inside parts for the fuzz targets. Only there with `--cfg fuzzing`, and not part of the API.

use crate::{
    capture::{self, Tables, UnwindTable},
    cfi,
    sys::{Registers, StackView},
};
use std::{cell::RefCell, sync::Arc};

/// Compiles any bytes as the unwind information of a module, asks the table for every address,
/// and walks a stack of any words by it.
pub fn cfi_compile(bytes: &[u8]) {
    let Some((head, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let word = |at: usize| u64::from(u16::from_ne_bytes([head[at], head[at + 1]]));
    // A text of up to a megabyte somewhere near its unwind information, as in a module, or one
    // that the numbers wrap around in.
    let start = if word(6) == u64::from(u16::MAX) { u64::MAX - 0x8000 } else { word(0) << 8 };
    let text = start..start.saturating_add(word(2) << 4);
    let address = word(4) << 6;
    let table = cfi::compile(text.clone(), address, bytes).table;
    let step = (word(2) / 64 + 1) as usize;
    for address in text.clone().step_by(step).chain([text.end, text.end.wrapping_add(1), u64::MAX])
    {
        table.rule(address);
    }
    let words = bytes.chunks_exact(8).take(WORDS).map(|word| {
        let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
        // Every other word leads into the text, or no walk would go far.
        if word & 1 == 0 { text.start.wrapping_add(word >> 1 & 0xffff) } else { word }
    });
    STACK.with_borrow_mut(|stack| walk(table, text.start, words, stack));
}

/// How many words of a stack are made up.
const WORDS: usize = 256;
/// A walk that probes looks from the page that the stack pointer is in to a megabyte above it.
const PAGE: usize = 4096 / 8;

thread_local! {
    static STACK: RefCell<Vec<u64>> = RefCell::new(vec![0; 2 * PAGE + (1 << 20) / 8]);
}

fn walk(table: UnwindTable, text: u64, words: impl Iterator<Item = u64>, stack: &mut [u64]) {
    stack[PAGE..PAGE + WORDS].fill(0);
    stack[PAGE..].iter_mut().zip(words).for_each(|(place, word)| *place = word);
    let sp = std::ptr::from_ref(&stack[PAGE]).expose_provenance() as u64;
    let tables = Tables::new(vec![Arc::new(table)]);
    let mut frames = 0;
    for pc in [text, stack[PAGE], stack[PAGE + WORDS / 2]] {
        let registers = Registers { pc, sp, fp: sp + stack[PAGE + 1] % 512 * 8, lr: pc };
        capture::walk(&tables, &registers, StackView::probing, |_| {
            frames += 1;
            frames % 600 != 0
        });
    }
    assert!(frames <= 3 * 600, "every walk ends");
}
