//! A profile as a call tree: what the flame graph draws and the tables list.
//!
//! The stacks of a profile already are a tree, of addresses. Here it becomes one of functions: each
//! location is replaced by its frames, inlined ones included, and children of the same function
//! (name and file) are merged. That costs one table look-up for each frame of each *distinct*
//! stack, however many samples there are.

use super::{
    Profile,
    hash::Map,
    stack::{LocationId, Module, StackTable},
    symbols::{Frame, Symbols},
};
use std::{cmp::Reverse, sync::Arc};

/// The calls of a profile, weighted by one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTree {
    nodes: Vec<Node>,
    frames: Vec<Frame>,
}

/// A function as called along one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// How many callers it has, the root included; 0 for the root alone.
    pub depth: u32,
    /// The position of its frame in [`CallTree::frames`].
    pub frame: u32,
    /// The value of the samples that ended here.
    pub self_value: i64,
    /// The value of the samples that ended here or in a callee.
    pub total: i64,
}

/// What one function took over all the paths on which it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionTotals {
    /// The position of its frame in [`CallTree::frames`].
    pub frame: u32,
    /// The value of the samples that ended in it.
    pub self_value: i64,
    /// The value of the samples in which it occurs; one that calls itself counts once.
    pub total: i64,
}

impl CallTree {
    /// The tree of the values numbered `value_type`; callees hang below their callers.
    ///
    /// Stacks without a value are left out. A location without a name is shown as
    /// `module+0xoffset`, or as an address where it lies in no module.
    #[must_use]
    pub fn new(profile: &Profile, symbols: &Symbols, value_type: usize) -> Self {
        let weights = Weights::new(profile, value_type);
        let mut names = Names::new(&profile.stacks, symbols);
        let (raw, self_values) = expand(&profile.stacks, &weights, &mut names);
        let frames = names.into_frames(&weights.by_location);
        let nodes = preorder(&raw, &self_values, &frames);
        Self { nodes, frames }
    }

    /// The nodes in preorder, siblings heaviest first. The first one is the root, `all`.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The distinct functions, each with the line that weighs most. The first one is the root's.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The value of all samples.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.nodes[0].total
    }

    /// Every function, the one with the largest total first.
    #[must_use]
    pub fn functions_by_total(&self) -> Vec<FunctionTotals> {
        let mut functions = self.functions();
        functions.sort_by_key(|f| Reverse((f.total.unsigned_abs(), f.self_value.unsigned_abs())));
        functions
    }

    /// Every function, the one in which most samples ended first.
    #[must_use]
    pub fn functions_by_self(&self) -> Vec<FunctionTotals> {
        let mut functions = self.functions();
        functions.sort_by_key(|f| Reverse((f.self_value.unsigned_abs(), f.total.unsigned_abs())));
        functions
    }

    fn functions(&self) -> Vec<FunctionTotals> {
        let mut functions: Vec<_> = (0..self.frames.len())
            .map(|frame| FunctionTotals { frame: frame as u32, self_value: 0, total: 0 })
            .collect();
        let mut path: Vec<usize> = Vec::new();
        let mut on_path = vec![0_u32; functions.len()];
        for node in &self.nodes[1..] {
            while path.len() >= node.depth as usize {
                path.pop().into_iter().for_each(|frame| on_path[frame] -= 1);
            }
            let frame = node.frame as usize;
            let function = &mut functions[frame];
            function.self_value = function.self_value.saturating_add(node.self_value);
            if on_path[frame] == 0 {
                function.total = function.total.saturating_add(node.total);
            }
            on_path[frame] += 1;
            path.push(frame);
        }
        functions.remove(0);
        functions
    }
}

/// The values of the stacks, by position in their table.
struct Weights {
    self_values: Vec<i64>,
    /// Whether a sample with a value ends there or in a callee.
    used: Vec<bool>,
    /// The weight of each location, summed over the stacks that end in it.
    by_location: Vec<u64>,
}

impl Weights {
    fn new(profile: &Profile, value_type: usize) -> Self {
        let nodes = profile.stacks.nodes();
        let mut self_values = vec![0_i64; nodes.len()];
        for (sample, values) in profile.samples() {
            // A stack that is not in the table is the empty one, as everywhere.
            let at = Some(sample.stack.index()).filter(|i| *i < nodes.len()).unwrap_or(0);
            let value = values.get(value_type).copied().unwrap_or(0);
            self_values[at] = self_values[at].saturating_add(value);
        }
        let mut used: Vec<bool> = self_values.iter().map(|v| *v != 0).collect();
        let mut totals = self_values.clone();
        let mut by_location = vec![0_u64; profile.stacks.locations().len()];
        // Callers come before callees.
        for (i, (caller, location)) in nodes.iter().enumerate().skip(1).rev() {
            if used[i] && caller.index() < i {
                used[caller.index()] = true;
                totals[caller.index()] = totals[caller.index()].saturating_add(totals[i]);
            }
            if let Some(weight) = by_location.get_mut(location.index()) {
                *weight = weight.saturating_add(totals[i].unsigned_abs());
            }
        }
        Self { self_values, used, by_location }
    }
}

/// The frames of each location as small numbers.
struct Names<'a> {
    stacks: &'a StackTable,
    symbols: &'a Symbols,
    frames: Vec<Frame>,
    /// Function and file of every frame but the root's.
    index: Map<(Arc<str>, Arc<str>), u32>,
    /// For each location a range of `expanded`, once it is known.
    ranges: Vec<Option<(usize, usize)>>,
    /// Frame and line, outermost first.
    expanded: Vec<(u32, u32)>,
}

impl<'a> Names<'a> {
    fn new(stacks: &'a StackTable, symbols: &'a Symbols) -> Self {
        Self {
            stacks,
            symbols,
            frames: vec![Frame::new("all")],
            index: Map::default(),
            ranges: vec![None; stacks.locations().len()],
            expanded: Vec::new(),
        }
    }

    fn of(&mut self, location: LocationId) -> &[(u32, u32)] {
        let known = self.ranges.get(location.index()).copied().flatten();
        let (from, to) = known.unwrap_or_else(|| self.expand(location));
        &self.expanded[from..to]
    }

    fn expand(&mut self, location: LocationId) -> (usize, usize) {
        let from = self.expanded.len();
        let symbols = self.symbols;
        for frame in symbols.get(location).iter().rev() {
            let frame = if frame.function.is_empty() {
                Frame { function: self.unnamed(location), ..frame.clone() }
            } else {
                frame.clone()
            };
            self.push(frame);
        }
        if self.expanded.len() == from {
            let frame = Frame::new(self.unnamed(location));
            self.push(frame);
        }
        let range = (from, self.expanded.len());
        if let Some(slot) = self.ranges.get_mut(location.index()) {
            *slot = Some(range);
        }
        range
    }

    fn push(&mut self, frame: Frame) {
        let line = frame.line;
        let key = (Arc::clone(&frame.function), Arc::clone(&frame.file));
        let id = *self.index.entry(key).or_insert_with(|| {
            self.frames.push(frame);
            (self.frames.len() - 1) as u32
        });
        self.expanded.push((id, line));
    }

    fn unnamed(&self, location: LocationId) -> Arc<str> {
        match self.stacks.resolve(location) {
            None => "?".into(),
            Some((at, None)) => format!("{:#x}", at.address).into(),
            Some((at, Some(module))) => {
                let offset = at.address.wrapping_sub(module.bias);
                format!("{}+{offset:#x}", file_name(module)).into()
            }
        }
    }

    /// The frames, each at the line that weighs most; a known line beats an unknown one.
    fn into_frames(mut self, weights: &[u64]) -> Vec<Frame> {
        let mut lines = Vec::with_capacity(self.expanded.len());
        for (range, weight) in self.ranges.iter().zip(weights) {
            if let Some((from, to)) = *range {
                lines.extend(self.expanded[from..to].iter().map(|(f, line)| (*f, *line, *weight)));
            }
        }
        lines.sort_unstable();
        let mut best = vec![(false, 0_u64, 0_u32); self.frames.len()];
        for same in lines.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (frame, line, _) = same[0];
            let weight = same.iter().fold(0_u64, |sum, (_, _, w)| sum.saturating_add(*w));
            let best = &mut best[frame as usize];
            if (line != 0, weight) > (best.0, best.1) {
                *best = (line != 0, weight, line);
            }
        }
        for (frame, (_, _, line)) in self.frames.iter_mut().zip(best) {
            frame.line = line;
        }
        self.frames
    }
}

fn file_name(module: &Module) -> &str {
    module.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("?")
}

/// Parent and frame of every node, parents before children; and the nodes' own values.
fn expand(
    stacks: &StackTable,
    weights: &Weights,
    names: &mut Names<'_>,
) -> (Vec<(u32, u32)>, Vec<i64>) {
    let mut raw = vec![(0_u32, 0_u32)];
    let mut self_values = vec![weights.self_values[0]];
    let mut index: Map<(u32, u32), u32> = Map::default();
    let mut node_of = vec![0_u32; stacks.nodes().len()];
    for (i, (caller, location)) in stacks.nodes().iter().enumerate().skip(1) {
        if !weights.used[i] {
            continue;
        }
        let mut at = if caller.index() < i { node_of[caller.index()] } else { 0 };
        for (frame, _) in names.of(*location) {
            at = *index.entry((at, *frame)).or_insert_with(|| {
                raw.push((at, *frame));
                self_values.push(0);
                (raw.len() - 1) as u32
            });
        }
        node_of[i] = at;
        let sum = &mut self_values[at as usize];
        *sum = sum.saturating_add(weights.self_values[i]);
    }
    (raw, self_values)
}

/// Sorts siblings by weight, and among equals by name, and lists the tree from the root down.
fn preorder(raw: &[(u32, u32)], self_values: &[i64], frames: &[Frame]) -> Vec<Node> {
    let mut totals = self_values.to_vec();
    for (i, (parent, _)) in raw.iter().enumerate().skip(1).rev() {
        totals[*parent as usize] = totals[*parent as usize].saturating_add(totals[i]);
    }
    let mut order: Vec<u32> = (1..raw.len() as u32).collect();
    order.sort_unstable_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        let by_weight = (raw[a].0, Reverse(totals[a].unsigned_abs()))
            .cmp(&(raw[b].0, Reverse(totals[b].unsigned_abs())));
        let name = |i: usize| {
            let frame = &frames[raw[i].1 as usize];
            (&frame.function, &frame.file)
        };
        by_weight.then_with(|| name(a).cmp(&name(b)))
    });
    // `order` holds the children of node 0, then those of node 1, and so on.
    let mut first_child = vec![0_usize; raw.len() + 1];
    for (parent, _) in &raw[1..] {
        first_child[*parent as usize + 1] += 1;
    }
    for i in 1..first_child.len() {
        first_child[i] += first_child[i - 1];
    }
    let mut nodes = Vec::with_capacity(raw.len());
    let mut open = vec![(0_u32, 0_u32)];
    while let Some((i, depth)) = open.pop() {
        let at = i as usize;
        nodes.push(Node {
            depth,
            frame: raw[at].1,
            self_value: self_values[at],
            total: totals[at],
        });
        let children = &order[first_child[at]..first_child[at + 1]];
        open.extend(children.iter().rev().map(|child| (*child, depth + 1)));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{LabelsId, Location, StackId};
    use std::time::Duration;

    /// A profile under construction whose addresses are named as they come.
    struct Built(Profile, Symbols);

    impl Built {
        fn new() -> Self {
            Self(Profile::cpu(Duration::from_millis(10)), Symbols::new())
        }

        /// Gives `address` the frames `name@line`, innermost first.
        fn name(mut self, address: u64, frames: &[&str]) -> Self {
            let frames = frames.iter().map(|text| {
                let (name, line) = text.rsplit_once('@').unwrap_or((text, "0"));
                Frame::new(name).at("x.rs", line.parse().unwrap())
            });
            self.1.set(self.0.stacks.location(Location::new(address, None)), frames.collect());
            self
        }

        fn sample(mut self, root_first: &[u64], value: i64) -> Self {
            let path: Vec<_> = root_first
                .iter()
                .map(|a| self.0.stacks.location(Location::new(*a, None)))
                .collect();
            let stack = self.0.stacks.intern(path);
            self.0.add(stack, LabelsId::EMPTY, &[1, value]);
            self
        }

        fn tree(&self) -> CallTree {
            CallTree::new(&self.0, &self.1, 1)
        }
    }

    /// One line a node: indent, name, self/total.
    fn text(tree: &CallTree) -> Vec<String> {
        let line = |n: &Node| {
            let frame = &tree.frames()[n.frame as usize];
            let indent = " ".repeat(n.depth as usize);
            format!("{indent}{}:{} {}/{}", frame.function, frame.line, n.self_value, n.total)
        };
        tree.nodes().iter().map(line).collect()
    }

    #[test]
    fn inlined_frames_are_expanded_and_equal_functions_merged() {
        let tree = Built::new()
            .name(1, &["main@5"])
            .name(2, &["inlined@20", "outer@10"])
            .name(3, &["outer@11"])
            .name(4, &["inlined@21", "outer@12"])
            .sample(&[1, 2], 10)
            .sample(&[1, 3], 1)
            .sample(&[1, 4], 30)
            .tree();
        assert_eq!(
            text(&tree),
            ["all:0 0/41", " main:5 0/41", "  outer:12 1/41", "   inlined:21 40/40"]
        );
    }

    #[test]
    fn siblings_stand_heaviest_first_and_then_by_name() {
        let tree = Built::new()
            .name(1, &["b"])
            .name(2, &["a"])
            .name(3, &["c"])
            .sample(&[1], 5)
            .sample(&[2], 5)
            .sample(&[3], 9)
            .sample(&[], 2)
            .tree();
        assert_eq!(text(&tree), ["all:0 2/21", " c:0 9/9", " a:0 5/5", " b:0 5/5"]);
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        let tree = Built::new().sample(&[1, 2], 0).sample(&[1, 3], 4).tree();
        assert_eq!(text(&tree), ["all:0 0/4", " 0x1:0 0/4", "  0x3:0 4/4"]);
        assert_eq!(text(&Built::new().tree()), ["all:0 0/0"]);
        let missing = CallTree::new(&Built::new().sample(&[1], 4).0, &Symbols::new(), 9);
        assert_eq!(missing.total(), 0);
    }

    #[test]
    fn differences_keep_their_sign() {
        let tree = Built::new().sample(&[1, 2], -7).sample(&[1, 3], 7).sample(&[4], 1).tree();
        assert_eq!(
            text(&tree),
            ["all:0 0/1", " 0x4:0 1/1", " 0x1:0 0/0", "  0x2:0 -7/-7", "  0x3:0 7/7"]
        );
    }

    #[test]
    fn an_unnamed_place_is_an_offset_in_its_module() {
        let mut p = Profile::cpu(Duration::from_millis(10));
        let libc = Module { path: "/lib/libc.so.6".into(), bias: 0x7000, ..Module::default() };
        let module = p.stacks.module(&Arc::new(libc));
        let nameless = p.stacks.module(&Arc::new(Module::default()));
        for id in [module, nameless] {
            let location = p.stacks.location(Location::new(0x7123, Some(id)));
            let stack = p.stacks.intern([location]);
            p.add(stack, LabelsId::EMPTY, &[1, 1]);
        }
        let tree = CallTree::new(&p, &Symbols::new(), 0);
        assert_eq!(text(&tree), ["all:0 0/2", " ?+0x7123:0 1/1", " libc.so.6+0x123:0 1/1"]);
    }

    #[test]
    fn recursion_counts_once() {
        let tree = Built::new()
            .name(1, &["f"])
            .name(2, &["g"])
            .sample(&[1, 2, 1], 10)
            .sample(&[1], 1)
            .sample(&[2], 5)
            .sample(&[1, 1, 2, 2], 3)
            .tree();
        let show = |functions: Vec<FunctionTotals>| -> Vec<_> {
            let name = |f: &FunctionTotals| tree.frames()[f.frame as usize].function.to_string();
            functions.iter().map(|f| (name(f), f.self_value, f.total)).collect()
        };
        assert_eq!(show(tree.functions_by_total()), [("g".into(), 8, 18), ("f".into(), 11, 14)]);
        assert_eq!(show(tree.functions_by_self()), [("f".into(), 11, 14), ("g".into(), 8, 18)]);
    }

    #[test]
    fn stacks_of_another_table_do_no_harm() {
        let mut other = StackTable::new();
        let location = other.location(Location::new(1, None));
        let foreign = other.intern([location; 9]);
        let mut p = Profile::cpu(Duration::from_millis(10));
        p.add(foreign, LabelsId::EMPTY, &[1, 1]);
        let bad = p.stacks.push(foreign, location);
        p.add(bad, LabelsId::EMPTY, &[1, 2]);
        p.add(StackId::EMPTY, LabelsId::EMPTY, &[1, 4]);
        assert_eq!(text(&CallTree::new(&p, &Symbols::new(), 1)), ["all:0 5/7", " ?:0 2/2"]);
    }

    /// 100 000 samples over 100 000 distinct nodes; the bound is ten times what a laptop needs.
    #[test]
    fn a_large_profile_keeps_its_sum() {
        let mut built = Built::new();
        for address in 0..4000 {
            built = built.name(address, &[&format!("crate::module::function_{address}@7")]);
        }
        let mut random = 1_u64;
        for _ in 0..100_000 {
            let mut path = [0; 12];
            for (depth, address) in path.iter_mut().enumerate() {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *address = (random >> 40) % [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4][depth];
                *address += 100 * depth as u64;
            }
            built = built.sample(&path, 10);
        }
        let tree = built.tree();
        assert!(tree.nodes().len() > 50_000, "{}", tree.nodes().len());
        assert_eq!(tree.total(), 1_000_000);
    }
}
