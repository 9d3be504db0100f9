//! Stacks as a prefix tree of small numbers: a stack is a node, its parent is the caller.
//!
//! Two stacks that share their callers share those nodes, so an hour of samples is some tens of
//! thousands of nodes of eight bytes.

use super::hash::Map;
use std::sync::Arc;

/// A loaded object: the program or a shared library, at one place in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Module {
    /// The file it was loaded from; may be empty or a name in brackets, as `[vdso]`.
    pub path: Arc<str>,
    /// The GNU build id, in lower-case hex; empty where there is none.
    pub build_id: Arc<str>,
    /// The first address of its executable mapping.
    pub start: u64,
    /// The address after its executable mapping.
    pub end: u64,
    /// The offset of `start` in the file.
    pub file_offset: u64,
    /// What was added to the addresses in the file to get addresses in memory.
    pub bias: u64,
}

/// A place in the code.
///
/// `address` is the interrupted instruction for the leaf, and one less than the return address
/// for a caller, so that it lies inside the call instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Location {
    /// The address in memory.
    pub address: u64,
    /// The module it lies in, if it is in one.
    pub module: Option<ModuleId>,
}

impl Location {
    /// A place in the code.
    #[must_use]
    pub fn new(address: u64, module: Option<ModuleId>) -> Self {
        Self { address, module }
    }
}

/// A module of a [`StackTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(u32);

impl ModuleId {
    /// The position in [`StackTable::modules`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A location of a [`StackTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocationId(u32);

impl LocationId {
    /// The position in [`StackTable::locations`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A stack of a [`StackTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(u32);

impl StackId {
    /// The stack without a frame.
    pub const EMPTY: Self = Self(0);

    /// The position among the nodes; callers come before callees.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Interned stacks, locations and modules.
#[derive(Clone, Debug)]
pub struct StackTable {
    /// Caller and location of every stack; the first one is [`StackId::EMPTY`].
    nodes: Vec<(StackId, LocationId)>,
    locations: Vec<Location>,
    modules: Vec<Arc<Module>>,
    node_index: Map<(StackId, LocationId), StackId>,
    location_index: Map<Location, LocationId>,
    module_index: Map<Arc<Module>, ModuleId>,
}

impl Default for StackTable {
    fn default() -> Self {
        Self::new()
    }
}

impl StackTable {
    /// A table with just the empty stack.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: vec![(StackId::EMPTY, LocationId(0))],
            locations: Vec::new(),
            modules: Vec::new(),
            node_index: Map::default(),
            location_index: Map::default(),
            module_index: Map::default(),
        }
    }

    /// The number of `module`, which is added if it is new.
    pub fn module(&mut self, module: &Arc<Module>) -> ModuleId {
        if let Some(id) = self.module_index.get(module) {
            return *id;
        }
        let id = ModuleId(self.modules.len() as u32);
        self.modules.push(Arc::clone(module));
        self.module_index.insert(Arc::clone(module), id);
        id
    }

    /// The number of `location`, which is added if it is new.
    pub fn location(&mut self, location: Location) -> LocationId {
        *self.location_index.entry(location).or_insert_with(|| {
            self.locations.push(location);
            LocationId((self.locations.len() - 1) as u32)
        })
    }

    /// The stack in which `caller` has called `location`.
    pub fn push(&mut self, caller: StackId, location: LocationId) -> StackId {
        *self.node_index.entry((caller, location)).or_insert_with(|| {
            self.nodes.push((caller, location));
            StackId((self.nodes.len() - 1) as u32)
        })
    }

    /// The stack of these locations, outermost caller first.
    pub fn intern(&mut self, root_first: impl IntoIterator<Item = LocationId>) -> StackId {
        root_first.into_iter().fold(StackId::EMPTY, |caller, at| self.push(caller, at))
    }

    /// The locations of a stack, innermost (leaf) first. An unknown stack is an empty one.
    pub fn frames(&self, stack: StackId) -> impl Iterator<Item = LocationId> {
        let mut at = stack;
        std::iter::from_fn(move || {
            if at == StackId::EMPTY {
                return None;
            }
            let (caller, location) = *self.nodes.get(at.index())?;
            at = caller;
            Some(location)
        })
    }

    /// The caller of a stack's innermost frame, and that frame; `None` for the empty stack.
    #[must_use]
    pub fn split(&self, stack: StackId) -> Option<(StackId, LocationId)> {
        if stack == StackId::EMPTY { None } else { self.nodes.get(stack.index()).copied() }
    }

    /// How many nodes there are, the empty stack included; [`StackId::index`] is below it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no stack but the empty one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// All locations, by [`LocationId::index`].
    #[must_use]
    pub fn locations(&self) -> &[Location] {
        &self.locations
    }

    /// The numbers of all locations.
    pub fn location_ids(&self) -> impl ExactSizeIterator<Item = LocationId> + use<> {
        (0..self.locations.len() as u32).map(LocationId)
    }

    /// All modules, by [`ModuleId::index`].
    #[must_use]
    pub fn modules(&self) -> &[Arc<Module>] {
        &self.modules
    }

    /// The location numbered `id`, and its module.
    #[must_use]
    pub fn resolve(&self, id: LocationId) -> Option<(Location, Option<&Arc<Module>>)> {
        let location = *self.locations.get(id.index())?;
        Some((location, location.module.and_then(|m| self.modules.get(m.index()))))
    }

    /// The stack `id` of `from`, as a stack of this table. `seen` remembers what was adopted
    /// from the same table before, so that adopting all its stacks is linear in its size.
    pub fn adopt(&mut self, from: &Self, id: StackId, seen: &mut Adopted) -> StackId {
        if seen.nodes.is_empty() {
            // In their order: a reader takes the first module for the program.
            for module in &from.modules {
                self.module(module);
            }
        }
        seen.nodes.resize(from.nodes.len(), None);
        seen.locations.resize(from.locations.len(), None);
        let mut path = Vec::new();
        let mut at = id;
        let mut caller = loop {
            if at == StackId::EMPTY {
                break StackId::EMPTY;
            }
            let Some((parent, location)) = from.nodes.get(at.index()).copied() else {
                break StackId::EMPTY;
            };
            if let Some(known) = seen.nodes[at.index()] {
                break known;
            }
            path.push((at, location));
            at = parent;
        };
        for (at, location) in path.into_iter().rev() {
            let location = self.adopt_location(from, location, seen);
            caller = self.push(caller, location);
            seen.nodes[at.index()] = Some(caller);
        }
        caller
    }

    fn adopt_location(&mut self, from: &Self, id: LocationId, seen: &mut Adopted) -> LocationId {
        if let Some(known) = seen.locations[id.index()] {
            return known;
        }
        let (location, module) = match from.resolve(id) {
            Some((location, module)) => (location, module.map(|m| self.module(m))),
            None => (Location::new(0, None), None),
        };
        let known = self.location(Location::new(location.address, module));
        seen.locations[id.index()] = Some(known);
        known
    }

    /// Caller and location of every stack, by [`StackId::index`].
    pub(super) fn nodes(&self) -> &[(StackId, LocationId)] {
        &self.nodes
    }

    /// About how many bytes this table occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // A hash table keeps a control byte beside each slot.
        self.nodes.capacity() * size_of::<(StackId, LocationId)>()
            + self.locations.capacity() * size_of::<Location>()
            + self.node_index.capacity() * (size_of::<(StackId, LocationId, StackId)>() + 1)
            + self.location_index.capacity() * (size_of::<(Location, LocationId)>() + 1)
            + self.modules.len() * (size_of::<Module>() + 128)
    }
}

/// What was already copied from one table into another, see [`StackTable::adopt`].
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    nodes: Vec<Option<StackId>>,
    locations: Vec<Option<LocationId>>,
}

impl Adopted {
    /// What the location `id` of the other table is in this one, if it was copied.
    #[must_use]
    pub fn location(&self, id: LocationId) -> Option<LocationId> {
        self.locations.get(id.index()).copied().flatten()
    }

    /// Every location that was copied, as the position in the other table and the number in this
    /// one.
    pub(super) fn locations(&self) -> impl Iterator<Item = (usize, LocationId)> {
        self.locations.iter().enumerate().filter_map(|(from, to)| Some((from, (*to)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(table: &mut StackTable, root_first: &[u64]) -> StackId {
        let ids: Vec<_> =
            root_first.iter().map(|a| table.location(Location::new(*a, None))).collect();
        table.intern(ids)
    }

    fn addresses(table: &StackTable, stack: StackId) -> Vec<u64> {
        table.frames(stack).map(|l| table.locations()[l.index()].address).collect()
    }

    #[test]
    fn stacks_share_their_callers() {
        let mut t = StackTable::new();
        let a = stack(&mut t, &[1, 2, 3]);
        let b = stack(&mut t, &[1, 2, 4]);
        assert_eq!(t.len(), 1 + 4);
        assert_eq!(addresses(&t, a), [3, 2, 1]);
        assert_eq!(addresses(&t, b), [4, 2, 1]);
        assert_eq!(stack(&mut t, &[1, 2, 3]), a);
    }

    #[test]
    fn adopted_stacks_keep_addresses_and_modules() {
        let mut from = StackTable::new();
        let module = Arc::new(Module { path: "/bin/x".into(), ..Module::default() });
        let id = from.module(&module);
        let l = from.location(Location::new(7, Some(id)));
        let m = from.location(Location::new(8, None));
        let (a, b) = (from.intern([m, l]), from.intern([m, l, l]));
        let mut to = StackTable::new();
        stack(&mut to, &[99]);
        let mut seen = Adopted::default();
        let (a2, b2) = (to.adopt(&from, a, &mut seen), to.adopt(&from, b, &mut seen));
        assert_eq!(addresses(&to, a2), [7, 8]);
        assert_eq!(addresses(&to, b2), [7, 7, 8]);
        let leaf = to.frames(a2).next().unwrap();
        assert_eq!(to.resolve(leaf).unwrap().1, Some(&module));
        assert_eq!(to.adopt(&from, StackId(77), &mut seen), StackId::EMPTY);
    }
}
