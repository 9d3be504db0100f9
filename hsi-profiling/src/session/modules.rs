//! What is loaded, kept in step with the loader: a table for each module, compiled once.

use crate::{
    capture::{Tables, UnwindTable},
    cfi,
    profile::Module,
    stats::{COUNTERS, Counter},
    sys::{self, LoadedModule},
};
use std::sync::Arc;

/// The modules of this process.
#[derive(Debug, Default)]
pub(super) struct Modules {
    known: Vec<Known>,
    changes: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Known {
    module: Arc<Module>,
    table: Arc<UnwindTable>,
}

impl Modules {
    /// Reads the list anew if the loader has added or removed something since; whether it did.
    pub(super) fn refresh(&mut self) -> bool {
        let changes = sys::loader_changes();
        if self.changes == Some(changes) {
            return false;
        }
        self.changes = Some(changes);
        COUNTERS.add(Counter::ModuleScans, 1);
        let mut old = std::mem::take(&mut self.known);
        let loaded = sys::loaded_modules(|module| !old.iter().any(|known| known.is(module)));
        self.known = loaded
            .into_iter()
            .map(|module| match old.iter().position(|known| known.is(&module)) {
                Some(at) => old.swap_remove(at),
                None => Known::compile(module),
            })
            .collect();
        true
    }

    /// The unwind tables, for the handler.
    pub(super) fn tables(&self) -> Tables {
        Tables::new(self.known.iter().map(|known| Arc::clone(&known.table)).collect())
    }

    /// The modules, for naming addresses.
    pub(super) fn list(&self) -> Vec<Arc<Module>> {
        self.known.iter().map(|known| Arc::clone(&known.module)).collect()
    }

    /// The memory of the tables, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.known.iter().map(|known| known.table.bytes()).sum()
    }
}

impl Known {
    fn compile(loaded: LoadedModule) -> Self {
        let table = match &loaded.eh_frame {
            Some((address, bytes)) => {
                let compiled = cfi::compile(loaded.text.clone(), *address, bytes);
                COUNTERS.add(Counter::BrokenCfi, compiled.broken);
                compiled.table
            }
            None => UnwindTable::empty(loaded.text.clone()),
        };
        let module = Module {
            path: loaded.path.into(),
            build_id: loaded.build_id.into(),
            start: loaded.text.start,
            end: loaded.text.end,
            file_offset: loaded.file_offset,
            bias: loaded.bias,
        };
        Self { module: Arc::new(module), table: Arc::new(table) }
    }

    fn is(&self, loaded: &LoadedModule) -> bool {
        let module = &self.module;
        (module.start, module.end, module.bias) == (loaded.text.start, loaded.text.end, loaded.bias)
            && *module.path == *loaded.path
            && *module.build_id == *loaded.build_id
    }
}
