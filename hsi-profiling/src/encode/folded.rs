//! Collapsed stacks: a line of text for each stack, callers first, as flame graph tools read them.

use crate::profile::CallTree;
use std::fmt::Write;

/// One line `root;…;leaf value` for each stack with a value of its own, sorted.
///
/// A semicolon in a name becomes a comma and a control character a space, since neither can be
/// escaped in this format. A sample without a stack is not listed.
#[must_use]
pub fn encode(tree: &CallTree) -> String {
    let mut lines = Vec::new();
    // The path so far, and where it ended at each depth.
    let mut path = String::new();
    let mut ends = vec![0];
    for node in tree.nodes().iter().skip(1) {
        let depth = node.depth as usize;
        ends.truncate(depth);
        path.truncate(ends.last().copied().unwrap_or(0));
        if depth > 1 {
            path.push(';');
        }
        push_name(&mut path, &tree.frames()[node.frame as usize].function);
        ends.push(path.len());
        if node.self_value != 0 {
            lines.push(format!("{path} {}\n", node.self_value));
        }
    }
    lines.sort_unstable();
    lines.concat()
}

/// Adds a name in which nothing can be taken for the format's own signs.
pub(super) fn push_name(path: &mut String, name: &str) {
    let start = path.len();
    path.extend(name.trim().chars().map(|c| match c {
        ';' => ',',
        c if c.is_control() => ' ',
        c => c,
    }));
    if path.len() == start {
        let _ = path.write_str("?");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, LabelsId, Location, Profile, Symbols};
    use std::time::Duration;

    #[test]
    fn stacks_become_sorted_lines() {
        let mut p = Profile::cpu(Duration::from_millis(10));
        let mut names = Symbols::new();
        let functions = ["main", "<[u8; 4] as X>::f", "a\nb", " ", "z"];
        let ids: Vec<_> = (1..).map(|a| Location::new(a, None)).take(functions.len()).collect();
        let ids: Vec<_> = ids.into_iter().map(|l| p.stacks.location(l)).collect();
        for (id, name) in ids.iter().zip(functions) {
            names.set(*id, [Frame::new(name)].into());
        }
        for (path, value) in
            [(&[0, 4][..], 9), (&[0, 1], 3), (&[0, 1, 2], 5), (&[0, 3], -2), (&[0], 1), (&[], 7)]
        {
            let stack = p.stacks.intern(path.iter().map(|i| ids[*i]));
            p.add(stack, LabelsId::EMPTY, &[1, value]);
        }
        let text = encode(&CallTree::new(&p, &names, 1));
        let want =
            "main 1\nmain;<[u8, 4] as X>::f 3\nmain;<[u8, 4] as X>::f;a b 5\nmain;? -2\nmain;z 9\n";
        assert_eq!(text, want);
    }
}
