//! Memory as the system counts it: a run takes no more than its limit and a little, and where the system refuses more there is an answer
//! or an error in words, never an abort.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What a run may take beside its limit.
const BESIDE: u64 = 32 * MIB;
/// The stack of a thread without optimisation, and with.
const STACK_MIB: u64 = if cfg!(debug_assertions) { 256 } else { 32 };

/// Scripts whose state is larger than the limits they run with, or not far from them.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "sort",
        "from range(1, 400000) | derive k = value * 7919 % 1000003, s = f\"text number {value}\" | sort k, s | write none",
    ),
    (
        "aggregate",
        "from range(1, 400000) | derive k = value * 7919 % 1000003 | aggregate n = count(), s = sum(value), m = avg(value) by k | write none",
    ),
    (
        "distinct",
        "from range(1, 400000) | derive k = value * 7919 % 1000003, s = f\"text number {value}\" | distinct by k | write none",
    ),
    (
        "join",
        "stream o = from range(1, 30000) | derive s = f\"text number {value}\"\nfrom range(1, 400000) | join o on value | write none",
    ),
    (
        "large join",
        "stream o = from range(1, 200000) | derive s = f\"text number {value}\"\nfrom o | join o as p on value | write none",
    ),
    (
        "join of one key",
        "stream o = from range(1, 300000) | derive k = 1, s = f\"text number {value}\"\nfrom range(1, 3) | derive k = 1 | join o as p on k | write none",
    ),
    (
        "top",
        "from range(1, 400000) | derive s = f\"text number {value}\" | top 200000 on -value | write none",
    ),
    (
        "top of groups",
        "from range(1, 400000) | derive k = value * 7919 % 1000003, s = f\"text number {value}\" | top 3 on -s by k | write none",
    ),
    (
        "tail",
        "from range(1, 400000) | derive s = f\"text number {value}\" | tail 200000 | write none",
    ),
    (
        "tail of groups",
        "from range(1, 400000) | derive k = value % 3, s = f\"text number {value}\" | tail 100000 by k | write none",
    ),
    (
        "sample",
        "from range(1, 400000) | derive s = f\"text number {value}\" | sample 200000 | write none",
    ),
    (
        "describe",
        "from range(1, 400000) | derive k = value * 7919 % 1000003, s = f\"text number {value}\" | describe | write none",
    ),
];

/// Those that may also end with an error.
const GREEDY: &[(&str, &str)] = &[(
    "collect",
    "from range(1, 200000) | aggregate a = collect(value), j = string_join(f\"{value}\", \",\"), m = median(value), c = count_distinct(value) by k = value % 3 | write none",
)];

fn command(program: &str, folder: &Path, script: &str, limit_mib: u64, workers: u64) -> Command {
    let mut command = Command::new(program);
    if program == "sh" {
        let address_space = limit_mib + 256 + workers * STACK_MIB;
        command.args(["-c", &format!("ulimit -v {}; exec \"$@\"", address_space << 10), "sh"]);
        command.arg(assert_cmd::cargo::cargo_bin!("standpipe"));
    }
    command.current_dir(folder).args(["run", "-e", script, "--no-sync"]);
    command.args([
        "--memory",
        &format!("{limit_mib}MiB"),
        "--workers",
        &workers.to_string(),
    ]);
    command
}

/// The most that was resident, as the system has it shortly before the end.
fn peak(mut command: Command) -> (u64, Output) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let most = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: Option<u64> = most.and_then(|most| most.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_millis(1));
    }
    (peak, child.wait_with_output().unwrap())
}

#[test]
fn a_run_takes_no_more_than_its_limit_and_a_little() {
    let folder = tempfile::tempdir().unwrap();
    let program = assert_cmd::cargo::cargo_bin!("standpipe").display().to_string();
    let mut wrong = vec![];
    for (name, script) in SCRIPTS {
        let (peak, output) = peak(command(&program, folder.path(), script, 16, 2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert!(peak > 4 * MIB, "{name}: {peak} bytes can hardly be all");
        if peak > 16 * MIB + BESIDE {
            wrong.push(format!("{name}: {} MiB", peak / MIB));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join(", "));
}

#[test]
fn a_system_that_refuses_memory_gets_an_answer_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = vec![];
    let greedy = GREEDY.iter().map(|script| (script, true));
    for ((name, script), may_fail) in SCRIPTS.iter().map(|script| (script, false)).chain(greedy) {
        for (limit_mib, workers) in [(12, 1), (16, 2), (64, 2)] {
            let output = command("sh", folder.path(), script, limit_mib, workers)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let refused = output.status.code() == Some(1) && said.starts_with("error[E0701]: `");
            if !(output.status.success() || may_fail && refused) {
                wrong.push(format!(
                    "{name}, {limit_mib} MiB, {workers} workers: {:?} {said}",
                    output.status
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a program ended because the system refused it a few bytes: there it has no room even for the words of an error. Whatever
/// grows with the data is asked for so that it can be refused.
fn small_allocation_failed(said: &str) -> bool {
    let first = said
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("memory allocation of "));
    let bytes = first.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    bytes.is_some_and(|bytes| bytes <= 4096)
}

#[test]
fn hardly_any_memory_is_an_error_too() {
    let folder = tempfile::tempdir().unwrap();
    for more in [0, 20, 60, 100, 140] {
        for (name, script) in [SCRIPTS[0], SCRIPTS[2], GREEDY[0]] {
            let mut command = Command::new("sh");
            let limit = (STACK_MIB + more) << 10;
            command.args(["-c", &format!("ulimit -v {limit}; exec \"$@\"",), "sh"]);
            command
                .arg(assert_cmd::cargo::cargo_bin!("standpipe"))
                .current_dir(folder.path());
            command.args(["run", "-e", script, "--no-sync", "--memory", "64MiB", "--workers", "1"]);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let in_words = output.status.code() == Some(1) && said.starts_with("error[E07");
            assert!(
                output.status.success() || in_words || (more < 100 && small_allocation_failed(&said)),
                "{name}, {more} MiB: {:?} {said}",
                output.status
            );
        }
    }
}
