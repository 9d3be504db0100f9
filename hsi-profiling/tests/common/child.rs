//! A test in a process of its own, because what it does to the process is for life: handlers,
//! limits, filters, namespaces, death.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed, and says why"
)]

use std::{
    env,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

const SCENARIO: &str = "HSI_TEST_SCENARIO";
/// Far beyond what any scenario takes, on any machine: whoever is not done by then hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// What it wrote, to both outputs.
    pub output: String,
}

/// Runs `scenario` in a process of its own: this program again, with just the test named `test`.
/// Fails if the scenario does, if the process dies, or if it hangs.
pub fn isolated(test: &str, scenario: impl FnOnce()) {
    isolated_with(test, &[], scenario);
}

/// [`isolated`], with these environment variables.
pub fn isolated_with(test: &str, variables: &[(&str, &str)], scenario: impl FnOnce()) {
    if is_scenario(test) {
        return scenario();
    }
    let ended = run(test, variables);
    // A name that is no test's would pass by running nothing.
    let ran = ended.output.contains("test result: ok. 1 passed");
    assert!(ended.status.success() && ran, "{test}: {}\n{}", ended.status, ended.output);
}

/// Whether this process was made to run this scenario.
pub fn is_scenario(test: &str) -> bool {
    env::var(SCENARIO).is_ok_and(|scenario| scenario == test)
}

/// Runs the test named `test` in a process of its own, and says how that ended.
pub fn run(test: &str, variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    for (name, _) in env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("HSI_PROFILING_") || ours == "OTEL_SERVICE_NAME" {
            command.env_remove(&name);
        }
    }
    command.env(SCENARIO, test).envs(variables.iter().copied());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = thread::spawn(move || read_all(&mut stdout));
    let stderr = thread::spawn(move || read_all(&mut stderr));
    let deadline = Instant::now() + DEADLINE;
    let mut late = "";
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            late = "it hung, and was killed\n";
            super::os::kill_group(child.id());
            break child.wait().unwrap();
        }
        thread::sleep(Duration::from_millis(2));
    };
    // Whoever the scenario left behind holds the pipes open.
    super::os::kill_group(child.id());
    let output = format!("{late}{}{}", stdout.join().unwrap(), stderr.join().unwrap());
    if status.signal().is_none() {
        print!("{output}");
    }
    Ended { status, output }
}

fn read_all(from: &mut impl Read) -> String {
    let mut all = Vec::new();
    let _ = from.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Whether what this machine does not allow is a failure: it is on the project's own, where
/// `HSI_CI=1`. Elsewhere the test says so and passes.
pub fn not_permitted(what: &str) {
    assert!(!env::var("HSI_CI").is_ok_and(|ci| ci == "1"), "not permitted here: {what}");
    eprintln!("skipped, not permitted here: {what}");
}
