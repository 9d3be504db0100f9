//! What names a module can have, and what its owner can do for better ones.

use std::fmt;
use std::sync::Arc;

/// What is known of the names of one module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolStatus {
    /// The file that the module was loaded from.
    pub path: Arc<str>,
    /// The build id of the running module, in hex; empty where it has none.
    pub build_id: Arc<str>,
    /// Whether it is the program itself, and not a library.
    pub main: bool,
    /// The best names that its file can give.
    pub kind: SymbolKind,
    /// Why debug info that is there is not used, or is used in part.
    pub problem: Option<String>,
    /// How many addresses were looked up in it so far.
    pub addresses: u64,
    /// How many of these have a file and a line.
    pub lines: u64,
    /// At how many of these the inlined functions have short names, as `next<u64>` for
    /// `core::iter::range::…::next`. The Rust compiler leaves it at that with
    /// `debug = "line-tables-only"`.
    pub short_names: u64,
}

/// The best names that a module's file can give.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SymbolKind {
    /// Functions, inlined functions, files and lines: there is debug info.
    Lines,
    /// Functions only: there is a symbol table, but no debug info.
    Functions,
    /// Exported functions only, as in a stripped library.
    Exports,
    /// Nothing: the file is stripped, and frames are offsets in it.
    Addresses,
    /// The file differs from what is running, so nothing in it can be used.
    Replaced,
    /// The file cannot be used.
    Unreadable {
        /// What went wrong.
        why: String,
    },
}

const LINES: &str = "Set `debug = \"limited\"` under `[profile.release]` in Cargo.toml: inlined \
                     functions and lines then have names, at no cost at run time.";
const SHORT: &str = "Set `debug = \"limited\"` under `[profile.release]` in Cargo.toml: with \
                     \"line-tables-only\" the names of inlined functions lack their paths.";
const STRIPPED: &str = "Set `strip = false` and `debug = \"limited\"` under `[profile.release]` in \
                        Cargo.toml, and see that nothing strips the program later: it has no \
                        names at all.";
const MOSTLY: &str = "Set `debug = \"limited\"` under `[profile.release]` in Cargo.toml: debug \
                      info covers less than half of the program's code.";
const REPLACED: &str = "Restart the process: its program file was replaced while it ran.";
const UNREADABLE: &str = "Let the process read its own program file, and mount /proc.";

impl SymbolStatus {
    /// What the owner of the program can do for better names, in a sentence. `None` where all is
    /// well, and for libraries, which are usually not the owner's to build.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        if !self.main {
            return None;
        }
        match self.kind {
            // The standard library brings its own debug info into a program built without any.
            SymbolKind::Lines if self.lines * 2 < self.addresses => Some(MOSTLY),
            SymbolKind::Lines if self.short_names * 4 > self.lines => Some(SHORT),
            SymbolKind::Lines => None,
            SymbolKind::Functions => Some(LINES),
            SymbolKind::Exports | SymbolKind::Addresses => Some(STRIPPED),
            SymbolKind::Replaced => Some(REPLACED),
            SymbolKind::Unreadable { .. } => Some(UNREADABLE),
        }
    }
}

impl fmt::Display for SymbolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("functions, inlined functions and lines"),
            Self::Functions => f.write_str("functions"),
            Self::Exports => f.write_str("exported functions"),
            Self::Addresses => f.write_str("addresses"),
            Self::Replaced => f.write_str("addresses: the file was replaced"),
            Self::Unreadable { why } => write!(f, "addresses: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(
        main: bool,
        kind: SymbolKind,
        [addresses, lines, short_names]: [u64; 3],
    ) -> SymbolStatus {
        SymbolStatus {
            path: "/bin/x".into(),
            build_id: "".into(),
            main,
            kind,
            problem: None,
            addresses,
            lines,
            short_names,
        }
    }

    #[test]
    fn the_owner_is_told_what_to_do() {
        let unreadable = SymbolKind::Unreadable { why: "gone".into() };
        for (kind, counts, want) in [
            (SymbolKind::Lines, [0, 0, 0], None),
            (SymbolKind::Lines, [10, 9, 1], None),
            (SymbolKind::Lines, [10, 9, 5], Some("paths")),
            (SymbolKind::Lines, [10, 2, 1], Some("half")),
            (SymbolKind::Functions, [0, 0, 0], Some("limited")),
            (SymbolKind::Exports, [0, 0, 0], Some("strip = false")),
            (SymbolKind::Addresses, [0, 0, 0], Some("strip = false")),
            (SymbolKind::Replaced, [0, 0, 0], Some("Restart")),
            (unreadable, [0, 0, 0], Some("read")),
        ] {
            let fix = status(true, kind.clone(), counts).fix();
            assert_eq!(fix.is_some(), want.is_some(), "{kind}");
            assert!(fix.unwrap_or_default().contains(want.unwrap_or_default()), "{kind}");
            assert_eq!(status(false, kind, counts).fix(), None);
        }
    }
}
