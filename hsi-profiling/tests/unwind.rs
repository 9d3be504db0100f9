//! Stacks equal to libgcc's. CI runs the same judge over other ways to build.

#[path = "../examples/unwind_judge/judge.rs"]
mod judge;

#[test]
fn stacks_are_equal_to_libgccs() {
    let verdict = judge::run(1000, std::time::Duration::from_secs(40));
    eprintln!("{verdict}");
    assert!(verdict.is_fair(), "{verdict}");
}
