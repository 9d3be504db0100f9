//! Settings, parsed once and valid ever after.
//!
//! What the code sets beats the environment, and the environment beats the defaults; only the
//! kill switch, `HSI_PROFILING_ENABLED=false`, beats everything.

use crate::error::Error;
use std::{env, ffi::OsString, ops::RangeInclusive};

/// The default of [`ConfigBuilder::cpu_hz`]: what Go's profiler and Pyroscope's SDKs use. It
/// costs under 0.2 % of one busy core; see the table in `benches/README.md`.
pub const DEFAULT_CPU_HZ: u32 = 100;
/// The default of [`ConfigBuilder::history_bytes`]: 16 MiB.
pub const DEFAULT_HISTORY_BYTES: usize = 16 << 20;
/// The default of [`ConfigBuilder::max_stack_depth`]: deeper than any service's stack but a
/// runaway recursion's, whose bottom says nothing new.
pub const DEFAULT_MAX_STACK_DEPTH: u32 = 512;
/// The default of [`ConfigBuilder::budget_percent`].
pub const DEFAULT_BUDGET_PERCENT: u32 = 1;
/// The default of [`ConfigBuilder::max_timers`].
pub const DEFAULT_MAX_TIMERS: u32 = 4096;

const CPU_HZ: RangeInclusive<u64> = 1..=4000;
const BUDGET_PERCENT: RangeInclusive<u64> = 1..=100;
const HISTORY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 34;
const STACK_DEPTH: RangeInclusive<u64> = 16..=2048;
const TIMERS: RangeInclusive<u64> = 0..=4096;
const MOST_SERVICE_BYTES: usize = 200;

/// Valid settings; made by [`Config::builder`] or [`Config::from_env`].
///
/// | variable | meaning | default | range |
/// |---|---|---|---|
/// | `HSI_PROFILING_ENABLED` | `false` switches everything off, whatever the code says | `true` | `true`, `false`, `1`, `0`, `on`, `off` |
/// | `HSI_PROFILING_SERVICE` | the service's name; else `OTEL_SERVICE_NAME` | the program's name | 1 to 200 bytes |
/// | `HSI_PROFILING_CPU_HZ` | samples a second of CPU time, for each thread | 100 | 1 to 4000 |
/// | `HSI_PROFILING_BUDGET_PERCENT` | what profiling may cost, in percent of the CPU time that the process uses, or of one core if that is more; the rate falls to stay under it | 1 | 1 to 100 |
/// | `HSI_PROFILING_HISTORY_BYTES` | memory for the history, in bytes | 16777216 | 1 MiB to 16 GiB |
/// | `HSI_PROFILING_MAX_STACK_DEPTH` | frames kept of a stack, innermost first | 512 | 16 to 2048 |
/// | `HSI_PROFILING_MAX_TIMERS` | threads with a timer of their own; the rest share one | 4096 | 0 to 4096 |
/// | `HSI_PROFILING_SIGNAL` | the signal number to use | a free real-time signal | `SIGPROF` (27) or a real-time signal |
/// | `HSI_PROFILING_GRAFANA_URL` | where the page's links lead; else `GRAFANA_URL` | `/grafana` | `http://…`, `https://…`, or a path |
/// | `HSI_PROFILING_PYROSCOPE_URL` | where "Open Pyroscope" leads | `http://localhost:4040` | `http://…`, `https://…`, or a path |
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) enabled: bool,
    pub(crate) service: String,
    pub(crate) cpu_hz: u32,
    pub(crate) budget_percent: u32,
    pub(crate) history_bytes: usize,
    pub(crate) max_stack_depth: u32,
    pub(crate) max_timers: u32,
    pub(crate) signal: Option<i32>,
    pub(crate) grafana_url: Option<String>,
    pub(crate) pyroscope_url: Option<String>,
}

impl Config {
    /// Settings for the service with this name; what isn't set is taken from the environment.
    #[must_use]
    pub fn builder(service: impl Into<String>) -> ConfigBuilder {
        ConfigBuilder { service: Some(service.into()), ..ConfigBuilder::default() }
    }

    /// Settings from the environment alone.
    ///
    /// # Errors
    ///
    /// A variable that is not valid; the error names it, its value and what is allowed.
    pub fn from_env() -> Result<Self, Error> {
        ConfigBuilder::default().build()
    }

    /// Settings with which nothing runs.
    pub(crate) fn off(service: String) -> Self {
        Self {
            enabled: false,
            service,
            cpu_hz: DEFAULT_CPU_HZ,
            budget_percent: DEFAULT_BUDGET_PERCENT,
            history_bytes: DEFAULT_HISTORY_BYTES,
            max_stack_depth: DEFAULT_MAX_STACK_DEPTH,
            max_timers: DEFAULT_MAX_TIMERS,
            signal: None,
            grafana_url: None,
            pyroscope_url: None,
        }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Whether profiling will run when it is started.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

/// Collects settings; [`ConfigBuilder::build`] checks them.
#[derive(Clone, Debug, Default)]
pub struct ConfigBuilder {
    service: Option<String>,
    enabled: Option<bool>,
    cpu_hz: Option<u32>,
    budget_percent: Option<u32>,
    history_bytes: Option<usize>,
    max_stack_depth: Option<u32>,
    max_timers: Option<u32>,
    signal: Option<i32>,
    grafana_url: Option<String>,
    pyroscope_url: Option<String>,
}

impl ConfigBuilder {
    /// Whether to profile at all. `HSI_PROFILING_ENABLED=false` in the environment beats `true`
    /// here. Default: `true`.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = Some(enabled);
        self
    }

    /// Samples a second of CPU time, for each thread, from 1 to 4000. More gives finer profiles
    /// of short windows and costs proportionally more; above the kernel's tick rate (often 250)
    /// stacks get no denser, only their weights finer. Default: [`DEFAULT_CPU_HZ`];
    /// `HSI_PROFILING_CPU_HZ`.
    #[must_use]
    pub fn cpu_hz(mut self, hz: u32) -> Self {
        self.cpu_hz = Some(hz);
        self
    }

    /// What profiling may cost, in percent of the CPU time that the process uses, or of one core
    /// if that is more. Where it costs more, the rate falls, to no less than a tenth of
    /// [`ConfigBuilder::cpu_hz`]; weights stay right. Default: [`DEFAULT_BUDGET_PERCENT`];
    /// `HSI_PROFILING_BUDGET_PERCENT`.
    #[must_use]
    pub fn budget_percent(mut self, percent: u32) -> Self {
        self.budget_percent = Some(percent);
        self
    }

    /// Memory for the history, with its stacks and labels, from 1 MiB to 16 GiB. Less means
    /// that the oldest buckets go earlier. Default: [`DEFAULT_HISTORY_BYTES`];
    /// `HSI_PROFILING_HISTORY_BYTES`.
    #[must_use]
    pub fn history_bytes(mut self, bytes: usize) -> Self {
        self.history_bytes = Some(bytes);
        self
    }

    /// Frames kept of a stack, innermost first, from 16 to 2048. A deeper stack is marked and
    /// counted. Default: [`DEFAULT_MAX_STACK_DEPTH`]; `HSI_PROFILING_MAX_STACK_DEPTH`.
    #[must_use]
    pub fn max_stack_depth(mut self, frames: u32) -> Self {
        self.max_stack_depth = Some(frames);
        self
    }

    /// Threads that get a timer of their own, from 0 to 4096; the rest share the process's. Each
    /// timer takes one entry of `RLIMIT_SIGPENDING`, which all processes of a user share.
    /// Default: [`DEFAULT_MAX_TIMERS`]; `HSI_PROFILING_MAX_TIMERS`.
    #[must_use]
    pub fn max_timers(mut self, timers: u32) -> Self {
        self.max_timers = Some(timers);
        self
    }

    /// The signal to use, instead of a free real-time signal: `SIGPROF`, or a real-time signal
    /// that the program does not use otherwise. Signals on it that are not ours go on to the
    /// handler that was there before. `HSI_PROFILING_SIGNAL`.
    #[must_use]
    pub fn signal(mut self, signal: i32) -> Self {
        self.signal = Some(signal);
        self
    }

    /// Where Grafana is, for the page's links. `HSI_PROFILING_GRAFANA_URL`, else `GRAFANA_URL`.
    #[must_use]
    pub fn grafana_url(mut self, url: impl Into<String>) -> Self {
        self.grafana_url = Some(url.into());
        self
    }

    /// Where Pyroscope's own page is. `HSI_PROFILING_PYROSCOPE_URL`.
    #[must_use]
    pub fn pyroscope_url(mut self, url: impl Into<String>) -> Self {
        self.pyroscope_url = Some(url.into());
        self
    }

    /// Checks the settings and takes from the environment what is not set.
    ///
    /// # Errors
    ///
    /// A setting or a variable that is not valid; the error names it, its value and what is
    /// allowed. A variable is not looked at where the code has set the same.
    pub fn build(self) -> Result<Config, Error> {
        self.build_in(&|name| env::var_os(name))
    }

    /// Starts profiling with these settings: [`ConfigBuilder::build`] and
    /// [`Session::start`](crate::Session::start).
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub fn start(self) -> Result<crate::Session, Error> {
        crate::Session::start(self.build()?)
    }

    /// Just the rate, checked.
    pub(crate) fn checked_cpu_hz(self) -> Result<u32, Error> {
        Environment(&|_| None).number("cpu_hz", self.cpu_hz, "", CPU_HZ, DEFAULT_CPU_HZ)
    }

    fn build_in(self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, Error> {
        let env = Environment(environment);
        let switch = env.flag("HSI_PROFILING_ENABLED");
        if matches!(switch, Ok(Some(false))) || self.enabled == Some(false) {
            // What is off needs no valid settings.
            return Ok(Config::off(self.checked_service(&env).unwrap_or_else(|_| program_name())));
        }
        switch?;
        let config = Config {
            enabled: true,
            service: self.checked_service(&env)?,
            cpu_hz: env.number(
                "cpu_hz",
                self.cpu_hz,
                "HSI_PROFILING_CPU_HZ",
                CPU_HZ,
                DEFAULT_CPU_HZ,
            )?,
            budget_percent: env.number(
                "budget_percent",
                self.budget_percent,
                "HSI_PROFILING_BUDGET_PERCENT",
                BUDGET_PERCENT,
                DEFAULT_BUDGET_PERCENT,
            )?,
            history_bytes: env.number(
                "history_bytes",
                self.history_bytes,
                "HSI_PROFILING_HISTORY_BYTES",
                HISTORY_BYTES,
                DEFAULT_HISTORY_BYTES,
            )?,
            max_stack_depth: env.number(
                "max_stack_depth",
                self.max_stack_depth,
                "HSI_PROFILING_MAX_STACK_DEPTH",
                STACK_DEPTH,
                DEFAULT_MAX_STACK_DEPTH,
            )?,
            max_timers: env.number(
                "max_timers",
                self.max_timers,
                "HSI_PROFILING_MAX_TIMERS",
                TIMERS,
                DEFAULT_MAX_TIMERS,
            )?,
            signal: self.checked_signal(&env)?,
            grafana_url: env.url(
                "grafana_url",
                self.grafana_url,
                &["HSI_PROFILING_GRAFANA_URL", "GRAFANA_URL"],
            )?,
            pyroscope_url: env.url(
                "pyroscope_url",
                self.pyroscope_url,
                &["HSI_PROFILING_PYROSCOPE_URL"],
            )?,
        };
        Ok(config)
    }

    fn checked_service(&self, env: &Environment<'_>) -> Result<String, Error> {
        let (name, service) = match &self.service {
            Some(service) => ("service", service.clone()),
            None => match env.first(&["HSI_PROFILING_SERVICE", "OTEL_SERVICE_NAME"])? {
                Some(found) => found,
                None => return Ok(program_name()),
            },
        };
        let length = 1..=MOST_SERVICE_BYTES;
        if !length.contains(&service.len()) || service.chars().any(char::is_control) {
            return Err(invalid(
                name,
                service,
                format!("1 to {MOST_SERVICE_BYTES} bytes without control characters"),
            ));
        }
        Ok(service)
    }

    fn checked_signal(&self, env: &Environment<'_>) -> Result<Option<i32>, Error> {
        let (name, value) = match self.signal {
            Some(signal) => ("signal", signal.to_string()),
            None => match env.first(&["HSI_PROFILING_SIGNAL"])? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        match value.parse::<i32>() {
            Ok(signal) if signal == libc::SIGPROF || real_time.contains(&signal) => {
                Ok(Some(signal))
            }
            _ => Err(invalid(
                name,
                value,
                format!(
                    "{} (SIGPROF), or a real-time signal from {} to {}",
                    libc::SIGPROF,
                    real_time.start(),
                    real_time.end()
                ),
            )),
        }
    }
}

/// The name of the program, without its directory.
fn program_name() -> String {
    let name = env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

fn invalid(name: &'static str, value: String, allowed: impl Into<String>) -> Error {
    Error::Setting { name, value, allowed: allowed.into() }
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// The first of these variables that is set to something, with its name.
    fn first(&self, names: &[&'static str]) -> Result<Option<(&'static str, String)>, Error> {
        for name in names {
            match (self.0)(name).map(OsString::into_string) {
                None => {}
                Some(Ok(value)) if value.trim().is_empty() => {}
                Some(Ok(value)) => return Ok(Some((name, value.trim().to_owned()))),
                Some(Err(value)) => {
                    return Err(invalid(name, value.to_string_lossy().into_owned(), "UTF-8"));
                }
            }
        }
        Ok(None)
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, Error> {
        let Some((name, value)) = self.first(&[name])? else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(Some(true)),
            "false" | "0" | "off" | "no" => Ok(Some(false)),
            _ => Err(invalid(name, value, "true, 1, on, yes, false, 0, off, no")),
        }
    }

    fn number<T: TryFrom<u64> + ToString>(
        &self,
        setting: &'static str,
        code: Option<T>,
        variable: &'static str,
        range: RangeInclusive<u64>,
        default: T,
    ) -> Result<T, Error> {
        let (name, value) = match code {
            Some(value) => (setting, value.to_string()),
            None => match self.first(&[variable])? {
                Some(found) => found,
                None => return Ok(default),
            },
        };
        value
            .parse::<u64>()
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                invalid(
                    name,
                    value,
                    format!("a whole number from {} to {}", range.start(), range.end()),
                )
            })
    }

    fn url(
        &self,
        setting: &'static str,
        code: Option<String>,
        variables: &[&'static str],
    ) -> Result<Option<String>, Error> {
        let (name, url) = match code {
            Some(url) => (setting, url),
            None => match self.first(variables)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let known = ["http://", "https://"].iter().any(|scheme| {
            url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        });
        let path = url.starts_with('/') && !url.starts_with("//");
        let clean =
            !url.chars().any(|c| c.is_control() || c.is_whitespace() || ";,'\"<>\\".contains(c));
        if (known || path) && clean {
            Ok(Some(url.trim_end_matches('/').to_owned()))
        } else {
            Err(invalid(
                name,
                url,
                "http://host…, https://host… or an absolute path, without spaces, quotes, `,` or `;`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(builder: ConfigBuilder, env: &[(&str, &str)]) -> Result<Config, Error> {
        builder.build_in(&|name| {
            env.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn code_beats_environment_beats_default() {
        let hz = |builder, env: &[(&str, &str)]| build(builder, env).unwrap().cpu_hz;
        let set = [("HSI_PROFILING_CPU_HZ", "250")];
        assert_eq!(hz(Config::builder("a"), &[]), DEFAULT_CPU_HZ);
        assert_eq!(hz(Config::builder("a"), &set), 250);
        assert_eq!(hz(Config::builder("a").cpu_hz(19), &set), 19);
        let name = |env: &[(&str, &str)]| build(ConfigBuilder::default(), env).unwrap().service;
        assert_eq!(name(&[("OTEL_SERVICE_NAME", "otel")]), "otel");
        assert_eq!(name(&[("OTEL_SERVICE_NAME", "otel"), ("HSI_PROFILING_SERVICE", "own")]), "own");
        assert!(!name(&[]).is_empty());
    }

    #[test]
    fn the_kill_switch_beats_code() {
        for off in ["false", "0", "OFF", " no "] {
            let env = [("HSI_PROFILING_ENABLED", off)];
            assert!(!build(Config::builder("a").enabled(true), &env).unwrap().enabled, "{off}");
        }
        let env = [("HSI_PROFILING_ENABLED", "false"), ("HSI_PROFILING_CPU_HZ", "what")];
        assert!(!build(Config::builder(""), &env).unwrap().enabled, "off needs no valid settings");
        let env = [("HSI_PROFILING_ENABLED", "true")];
        assert!(!build(Config::builder("a").enabled(false), &env).unwrap().enabled);
        assert!(build(Config::builder("a"), &env).unwrap().enabled);
    }

    #[test]
    fn errors_name_the_variable_the_value_and_what_is_allowed() {
        for (variable, value, allowed) in [
            ("HSI_PROFILING_ENABLED", "maybe", "true, 1, on"),
            ("HSI_PROFILING_CPU_HZ", "0", "1 to 4000"),
            ("HSI_PROFILING_CPU_HZ", "4001", "1 to 4000"),
            ("HSI_PROFILING_CPU_HZ", "-5", "1 to 4000"),
            ("HSI_PROFILING_CPU_HZ", "1e2", "1 to 4000"),
            ("HSI_PROFILING_BUDGET_PERCENT", "0", "1 to 100"),
            ("HSI_PROFILING_HISTORY_BYTES", "99", "1048576 to"),
            ("HSI_PROFILING_MAX_STACK_DEPTH", "3", "16 to 2048"),
            ("HSI_PROFILING_MAX_TIMERS", "9999", "0 to 4096"),
            ("HSI_PROFILING_SIGNAL", "11", "27 (SIGPROF)"),
            ("HSI_PROFILING_GRAFANA_URL", "javascript:alert(1)", "http://"),
            ("GRAFANA_URL", "http://x; script-src *", "http://"),
            ("HSI_PROFILING_PYROSCOPE_URL", "//evil", "http://"),
        ] {
            let error = build(Config::builder("a"), &[(variable, value)]).unwrap_err().to_string();
            for part in [variable, value, allowed] {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        }
        let error = build(Config::builder("").cpu_hz(1), &[]).unwrap_err().to_string();
        assert!(error.contains("service") && error.contains("1 to 200"), "{error}");
        let error = build(Config::builder("a").cpu_hz(0), &[]).unwrap_err().to_string();
        assert!(error.starts_with("cpu_hz: `0`"), "{error}");
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let env = [("HSI_PROFILING_CPU_HZ", ""), ("HSI_PROFILING_ENABLED", " ")];
        let config = build(Config::builder("a"), &env).unwrap();
        assert_eq!((config.cpu_hz, config.enabled), (DEFAULT_CPU_HZ, true));
    }

    #[test]
    fn urls_lose_their_last_slash() {
        let url = |u: &str| build(Config::builder("a").grafana_url(u), &[]).unwrap().grafana_url;
        assert_eq!(url("https://g.example/grafana/").as_deref(), Some("https://g.example/grafana"));
        assert_eq!(url("/grafana").as_deref(), Some("/grafana"));
    }
}
