//! The call tree as a picture that works without JavaScript, drawn by inferno.
//!
//! It is for the download, for mail, and for a page whose reader has scripts turned off. A browser
//! lays out a few thousand elements at once, so the widest frames are drawn and the subtitle says
//! how much is missing; the page's own viewer leaves nothing out.

use super::folded::push_name;
use crate::profile::{CallTree, Node, Unit};
use inferno::flamegraph::{
    self, Direction, Options, Palette, TextTruncateDirection,
    color::{BackgroundColor, Color, MultiPalette},
};
use std::cmp::Reverse;

/// How many frames are drawn at most.
const MAX_FRAMES: usize = 1500;

/// How many callers deep the picture goes.
const MAX_DEPTH: u32 = 250;

/// The width of the picture and of its widest frame, in pixels.
const WIDTH: usize = 1200;
const INNER_WIDTH: u64 = 1180;

/// Names are cut to this length, in characters.
const MAX_NAME: usize = 240;

/// The tree as an SVG, callers on top. `title` is the headline, `subtitle` the line under it, and
/// `unit` what the values are counted in. Negative values count as 0.
#[must_use]
pub fn encode(tree: &CallTree, title: &str, subtitle: &str, unit: &Unit) -> String {
    let picture = Picture::new(tree);
    if picture.total == 0 {
        return notice(title, "No samples");
    }
    let mut options = options(title, picture.total, unit);
    options.subtitle = Some(join(subtitle, &picture.missing()));
    let lines = picture.lines();
    let mut svg = Vec::new();
    match flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), &mut svg) {
        Ok(()) => without_script(&String::from_utf8_lossy(&svg)),
        Err(e) => notice(title, &format!("No picture: {e}")),
    }
}

fn options(title: &str, total: u64, unit: &Unit) -> Options<'static> {
    let mut options = Options::default();
    options.title = clean(title);
    options.direction = Direction::Inverted;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.image_width = Some(WIDTH);
    // What is too narrow is already gone.
    options.min_width = 0.0;
    options.colors = Palette::Multi(MultiPalette::Rust);
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 255, g: 255, b: 255 }));
    // The same function has the same colour in every picture.
    options.deterministic = true;
    // Keeps the order of the lines, so that the heaviest sibling stands first.
    options.flame_chart = true;
    (options.factor, options.count_name) = match unit {
        Unit::Nanoseconds if total < 10_000_000_000 => (1e-3, "µs".into()),
        Unit::Nanoseconds => (1e-6, "ms".into()),
        Unit::Bytes if total >= 10 << 20 => (1.0 / 1024.0, "KiB".into()),
        other => (1.0, clean(other.name())),
    };
    options
}

/// The part of the tree that is drawn.
struct Picture<'a> {
    tree: &'a CallTree,
    /// The value of each node with its callees.
    totals: Vec<u64>,
    drawn: Vec<bool>,
    total: u64,
}

impl<'a> Picture<'a> {
    fn new(tree: &'a CallTree) -> Self {
        let totals = totals(tree);
        let total = totals[0];
        // Below a fifth of a pixel there is nothing to see.
        let least = (total / (5 * INNER_WIDTH)).max(1);
        let visible = |(i, node): &(usize, &Node)| totals[*i] >= least && node.depth <= MAX_DEPTH;
        let mut widest: Vec<usize> =
            tree.nodes().iter().enumerate().filter(visible).map(|(i, _)| i).collect();
        // A caller is as wide as its callee and stands before it, so whatever is drawn hangs on
        // something that is drawn.
        widest.sort_unstable_by_key(|i| (Reverse(totals[*i]), *i));
        let mut drawn = vec![false; totals.len()];
        widest.iter().take(MAX_FRAMES).for_each(|i| drawn[*i] = true);
        Self { tree, totals, drawn, total }
    }

    /// inferno's lines, callees before their caller's own value, so that they stand left of it.
    /// What is not drawn is part of its caller's own value.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut path = String::new();
        // For each frame of the path, what its callees have left, and where its name ends.
        let mut open: Vec<(u64, usize)> = Vec::new();
        let mut undrawn = self.total;
        for (i, node) in
            self.tree.nodes().iter().enumerate().skip(1).filter(|(i, _)| self.drawn[*i])
        {
            close(&mut open, node.depth as usize - 1, &mut path, &mut lines);
            let left = open.last_mut().map_or(&mut undrawn, |(left, _)| left);
            *left = left.saturating_sub(self.totals[i]);
            if !path.is_empty() {
                path.push(';');
            }
            push_picture_name(&mut path, &self.tree.frames()[node.frame as usize].function);
            open.push((self.totals[i], path.len()));
        }
        close(&mut open, 0, &mut path, &mut lines);
        if undrawn > 0 {
            lines.push(format!("(elsewhere) {undrawn}"));
        }
        lines
    }

    /// What the picture leaves out, for its reader.
    fn missing(&self) -> String {
        let frames = self.drawn.iter().filter(|d| !**d).count();
        if frames == 0 {
            return String::new();
        }
        let mut hidden = 0;
        let mut skip_below = u32::MAX;
        for (i, node) in self.tree.nodes().iter().enumerate() {
            if node.depth > skip_below {
                continue;
            }
            skip_below = u32::MAX;
            if !self.drawn[i] {
                hidden += self.totals[i];
                skip_below = node.depth;
            }
        }
        let share = 100.0 * hidden as f64 / self.total as f64;
        format!("{frames} narrow or deep frames, {share:.1} % of the total, are not drawn")
    }
}

/// Ends the frames below `depth`, each with a line for its own value.
fn close(open: &mut Vec<(u64, usize)>, depth: usize, path: &mut String, lines: &mut Vec<String>) {
    while open.len() > depth {
        let Some((own, end)) = open.pop() else { return };
        path.truncate(end);
        if own > 0 {
            lines.push(format!("{path} {own}"));
        }
    }
    path.truncate(open.last().map_or(0, |(_, end)| *end));
}

/// The totals without negative values, scaled down until their sum is exact in floating point.
fn totals(tree: &CallTree) -> Vec<u64> {
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let sum: u128 = tree.nodes().iter().map(|n| u128::from(positive(n.self_value))).sum();
    let shift = (128 - sum.leading_zeros()).saturating_sub(53);
    let mut totals: Vec<u64> =
        tree.nodes().iter().map(|n| positive(n.self_value) >> shift).collect();
    let mut below: Vec<u64> = Vec::new();
    // Backwards in preorder, a node's callees have been added up when it comes.
    for (node, total) in tree.nodes().iter().zip(&mut totals).rev() {
        let depth = node.depth as usize;
        below.resize(below.len().max(depth + 2), 0);
        *total += std::mem::take(&mut below[depth + 1]);
        below[depth] += *total;
    }
    totals
}

const NO_BREAK_SPACE: char = '\u{a0}';

/// inferno takes a number after a space for a value.
fn push_picture_name(path: &mut String, name: &str) {
    let mut short = String::new();
    push_name(&mut short, name);
    path.extend(clean(&short).chars().take(MAX_NAME).map(|c| match c {
        c if c.is_whitespace() => NO_BREAK_SPACE,
        c => c,
    }));
}

/// The text without what XML can't hold.
fn clean(text: &str) -> String {
    let allowed = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().filter(allowed).collect()
}

fn join(subtitle: &str, missing: &str) -> String {
    let parts: Vec<_> =
        [subtitle, missing].into_iter().filter(|p| !p.is_empty()).map(clean).collect();
    parts.join(" · ")
}

/// inferno's picture without the script and the controls that need it. Names are escaped, so these
/// signs are inferno's own wherever they occur.
fn without_script(svg: &str) -> String {
    let mut out = svg.replace(" onload=\"init(evt)\"", "");
    for (start, end) in [
        ("<script", "</script>"),
        ("<text id=\"unzoom\"", "</text>"),
        ("<text id=\"search\"", "</text>"),
    ] {
        while let Some(from) = out.find(start) {
            let to = out[from..].find(end).map_or(out.len(), |at| from + at + end.len());
            out.replace_range(from..to, "");
        }
    }
    out
}

fn notice(title: &str, text: &str) -> String {
    let escape = |text: &str| clean(text).replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"80\" \
         font-family=\"monospace\" text-anchor=\"middle\">\
         <text x=\"50%\" y=\"30\" font-size=\"17\">{}</text>\
         <text x=\"50%\" y=\"60\" font-size=\"12\">{}</text></svg>\n",
        escape(title),
        escape(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, LabelsId, Location, Profile, Symbols};
    use std::time::Duration;

    /// The tree of these stacks, whose functions are named by their addresses.
    fn tree(stacks: &[(&[u64], i64)], name: impl Fn(u64) -> String) -> CallTree {
        let mut p = Profile::cpu(Duration::from_millis(10));
        let mut names = Symbols::new();
        for (path, value) in stacks {
            let mut ids = Vec::new();
            for address in *path {
                let id = p.stacks.location(Location::new(*address, None));
                names.set(id, [Frame::new(name(*address))].into());
                ids.push(id);
            }
            let stack = p.stacks.intern(ids);
            p.add(stack, LabelsId::EMPTY, &[1, *value]);
        }
        CallTree::new(&p, &names, 1)
    }

    fn draw(tree: &CallTree) -> String {
        encode(tree, "CPU <time>", "checkout & co", &Unit::Nanoseconds)
    }

    /// The tooltip of every frame, in the order in which they are drawn.
    fn tooltips(svg: &str) -> Vec<&str> {
        svg.split("<title>").skip(1).map(|rest| rest.split("</title>").next().unwrap()).collect()
    }

    #[test]
    fn frames_have_names_values_and_shares() {
        let name = |a| ["main", "f 7", "<[u8; 4]>::g"][a as usize].to_owned();
        let svg = draw(&tree(&[(&[0, 1], 3_000_000), (&[0, 2], 1_000_000), (&[0], 1000)], name));
        assert_eq!(
            tooltips(&svg),
            [
                "f\u{a0}7 (3,000 µs, 74.98%)",
                "&lt;[u8,\u{a0}4]&gt;::g (1,000 µs, 24.99%)",
                "all (4,001 µs, 100%)",
                "main (4,001 µs, 100.00%)",
            ]
        );
        assert!(svg.contains(">CPU &lt;time&gt;<") && svg.contains(">checkout &amp; co<"), "{svg}");
    }

    #[test]
    fn nothing_in_it_runs() {
        let evil = |a| format!("</script><script>alert({a})</script>\u{1}\u{ffff}");
        let svg = draw(&tree(&[(&[1, 2], 5)], evil));
        for word in ["<script", "onload", "onclick", "Search", "Reset Zoom", "\u{1}", "\u{ffff}"] {
            assert!(!svg.contains(word), "{word} in {svg}");
        }
        assert!(svg.contains("&lt;script&gt;alert(1)"), "{svg}");
    }

    #[test]
    fn the_widest_frames_are_drawn_and_the_rest_is_said() {
        let paths: Vec<[u64; 2]> = (0..4000).map(|i| [i % 8, i]).collect();
        let stacks: Vec<(&[u64], i64)> =
            paths.iter().map(|p| (&p[..], if p[1] < 1000 { 9000 } else { 6000 })).collect();
        let svg = draw(&tree(&stacks, |a| a.to_string()));
        // And one rectangle is the background.
        assert_eq!(svg.matches("<rect").count(), MAX_FRAMES + 1);
        assert_eq!(tooltips(&svg).iter().filter(|t| t.contains("(9 µs")).count(), 1000);
        let hidden = 100.0 * (4000.0 + 9.0 - 1500.0) * 6.0 / (1000.0 * 9.0 + 3000.0 * 6.0);
        let want = format!("2509 narrow or deep frames, {hidden:.1} % of the total");
        assert!(svg.contains(&want), "{want} not in {}", &svg[..3000]);
    }

    #[test]
    fn extreme_profiles_have_a_picture() {
        let deep: Vec<u64> = (0..5000).collect();
        let svg = draw(&tree(&[(&deep, 5)], |a| a.to_string()));
        assert_eq!(tooltips(&svg).len(), MAX_DEPTH as usize + 1);
        assert!(svg.contains("4750 narrow or deep frames, 100.0 % of"), "{}", &svg[..3000]);

        let large =
            draw(&tree(&[(&[1], i64::MAX), (&[2], i64::MAX), (&[3], i64::MAX)], |a| a.to_string()));
        assert_eq!(tooltips(&large).iter().filter(|t| t.contains("33.33%")).count(), 3);
        assert!(draw(&tree(&[(&[1], -5)], |a| a.to_string())).contains("No samples"));
        let bare = draw(&tree(&[(&[], 5_000)], |a| a.to_string()));
        assert_eq!(tooltips(&bare), ["all (5 µs, 100%)", "(elsewhere) (5 µs, 100.00%)"]);
    }
}
