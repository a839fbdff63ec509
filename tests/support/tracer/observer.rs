//! What the parent of a program reads of its threads in /proc.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::calls::plain_name;

/// Returns the state of each thread of a process, and the call that it sleeps in.
pub fn threads_of(pid: i32) -> String {
    let mut text = String::new();
    for (tid, fields) in statuses(pid) {
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}"));
        let state = fields.get("State").map_or("", String::as_str);
        let calls = read("syscall").unwrap_or_default();
        let nr = calls.split(' ').next().and_then(|nr| nr.parse().ok()).and_then(plain_name);
        let (state, nr) = (state.get(..1).unwrap_or("?"), nr.unwrap_or("-"));
        let _ = write!(text, "{tid} {state} {nr} {}; ", read("wchan").unwrap_or_default());
    }
    text
}

/// Reads /proc/PID/task/TID/status of every thread.
pub fn statuses(pid: i32) -> BTreeMap<i32, HashMap<String, String>> {
    let mut threads = BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return threads };
    for task in tasks.flatten() {
        let Ok(text) = std::fs::read_to_string(task.path().join("status")) else { continue };
        let Some(tid) = task.file_name().to_str().and_then(|tid| tid.parse().ok()) else {
            continue;
        };
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        threads.insert(tid, fields.collect());
    }
    threads
}
