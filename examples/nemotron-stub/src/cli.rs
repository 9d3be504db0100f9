//! What the operator may choose: the command line and the one environment variable.
//!
//! Everything is parsed into types that cannot hold a bad value, so nothing is checked again
//! later. The profiler's own variables, `HSI_PROFILING_*`, are none of our business.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::load::Rate;
use crate::model::Depth;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
A small text-generation service under a built-in load, to profile.

Usage: nemotron-stub [OPTIONS]

Options:
  --load         hold conversations with ourselves (the default)
  --no-load      wait for requests from elsewhere
  --rate <N>     completions a second that the load aims at, 0.1 to 100 [default: 3]
  --layers <N>   layers of the model, from 1 to 16; the cost of a token and the
                 memory of a session grow with them [default: 4]
  --help         print this text

Environment:
  NEMOTRON_ADDR          address to listen on, as IP:PORT [default: 127.0.0.1:8027]
                       The profiling page answers to loopback only, wherever we listen.
  RUST_LOG             which log lines to print [default: info]
  RAYON_NUM_THREADS    threads that compute [default: one a core]
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Serve until told to stop.
    Run(Options),
    /// Print [`HELP`] and leave.
    Help,
}

/// How to serve.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// Where to listen.
    pub(crate) address: SocketAddr,
    /// How fast the built-in load asks for completions; `None` is no load at all.
    pub(crate) load: Option<Rate>,
    /// How large the model is.
    pub(crate) depth: Depth,
}

impl Command {
    /// Reads this process's arguments and environment.
    pub(crate) fn from_env() -> Result<Self, UsageError> {
        Self::parse(env::args_os().skip(1), env::var_os(ADDRESS_VARIABLE).as_deref())
    }

    fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        address: Option<&OsStr>,
    ) -> Result<Self, UsageError> {
        let mut load = true;
        let mut rate = Rate::DEFAULT;
        let mut depth = Depth::DEFAULT;

        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.to_string_lossy().into_owned();
            // `--rate 4` and `--rate=4` are the same.
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (argument.as_str(), None),
            };
            match (name, &inline) {
                ("--help" | "-h", None) => return Ok(Self::Help),
                ("--load", None) => load = true,
                ("--no-load", None) => load = false,
                ("--rate", _) => rate = value(name, inline.or_else(|| arguments.next()))?,
                ("--layers", _) => depth = value(name, inline.or_else(|| arguments.next()))?,
                _ => {
                    return Err(UsageError(format!(
                        "unknown argument {argument:?}; \
                         --load, --no-load, --rate <N>, --layers <N> and --help are allowed"
                    )));
                }
            }
        }

        let address = address.unwrap_or(OsStr::new(DEFAULT_ADDRESS)).to_string_lossy();
        let address = address.parse().map_err(|_| {
            UsageError(format!(
                "{ADDRESS_VARIABLE}={address:?} is not an address; \
                 IP:PORT is allowed, such as {DEFAULT_ADDRESS} or [::1]:8027"
            ))
        })?;
        Ok(Self::Run(Options { address, load: load.then_some(rate), depth }))
    }
}

/// A sentence that names what was wrong and what is allowed.
#[derive(Debug, PartialEq)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const ADDRESS_VARIABLE: &str = "NEMOTRON_ADDR";
const DEFAULT_ADDRESS: &str = "127.0.0.1:8027";

fn value<T: FromStr<Err: fmt::Display>>(
    name: &str,
    text: Option<OsString>,
) -> Result<T, UsageError> {
    let text = text.ok_or_else(|| UsageError(format!("{name} needs a value")))?;
    let text = text.to_string_lossy();
    text.parse().map_err(|allowed| UsageError(format!("{name} {text:?}: {allowed}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_arguments_serve_the_default_load_on_loopback() {
        let Ok(Command::Run(options)) = parse(&[], None) else { panic!("not run") };
        assert_eq!(options.address, SocketAddr::from(([127, 0, 0, 1], 8027)));
        assert_eq!(options.load, Some(Rate::DEFAULT));
        assert_eq!(options.depth, Depth::DEFAULT);
    }

    #[test]
    fn values_may_follow_or_be_attached() {
        let apart = parse(&["--rate", "12.5", "--layers", "2"], Some("[::1]:0"));
        let attached = parse(&["--rate=12.5", "--layers=2"], Some("[::1]:0"));
        assert_eq!(apart, attached);
        let Ok(Command::Run(options)) = apart else { panic!("not run") };
        assert_eq!(options.load, "12.5".parse().ok());
        assert_eq!(options.depth.layers(), 2);
        assert_eq!(options.address, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)));
    }

    #[test]
    fn the_load_can_be_turned_off_and_help_asked_for() {
        assert!(matches!(
            parse(&["--no-load"], None),
            Ok(Command::Run(Options { load: None, .. }))
        ));
        assert_eq!(parse(&["--no-load", "--help"], None), Ok(Command::Help));
    }

    #[test]
    fn an_error_names_the_thing_the_value_and_what_is_allowed() {
        #[track_caller]
        fn check(arguments: &[&str], address: Option<&str>, expect: &[&str]) {
            let Err(error) = parse(arguments, address) else { panic!("accepted") };
            for part in expect {
                assert!(error.to_string().contains(part), "{error} lacks {part}");
            }
        }
        check(&["--rate"], None, &["--rate", "needs a value"]);
        check(&["--rate", "0"], None, &["--rate", "\"0\"", "0.1", "100"]);
        check(&["--rate=NaN"], None, &["--rate", "NaN", "0.1", "100"]);
        check(&["--layers", "17"], None, &["--layers", "\"17\"", "whole number", "1", "16"]);
        check(&["--load=yes"], None, &["--load=yes", "--no-load"]);
        check(&["--speed"], None, &["--speed", "--rate"]);
        check(&[], Some("localhost"), &["NEMOTRON_ADDR", "localhost", "IP:PORT"]);
    }

    fn parse(arguments: &[&str], address: Option<&str>) -> Result<Command, UsageError> {
        Command::parse(arguments.iter().map(OsString::from), address.map(OsStr::new))
    }
}
