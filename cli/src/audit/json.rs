//! The report as `--json` prints it: docs/audit-json.md.

use libpsx::process::{CapabilitySet, Ids};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Audit;
use super::expect::Failure;
use super::names::{self, Names};
use super::process::{Group, Process, Thread, Worker};
use super::state::{NAMESPACES, State};
use crate::terminal::printable;

/// The number of the JSON's shape. Fields may be added under the same number; a field that changes its
/// meaning, or goes, takes the next one.
const SCHEMA: u32 = 1;

/// The whole.
pub(crate) fn render(audit: &Audit, names: &mut Names) -> Value {
    json!({
        "schema": SCHEMA,
        "consistent": audit.consistent(),
        "as_expected": audit.as_expected(),
        "processes": audit.processes.iter().map(|one| process(one, names)).collect::<Vec<_>>(),
        "unreadable": audit.unreadable,
        "kernel_threads": audit.kernel,
    })
}

fn process(process: &Process, names: &mut Names) -> Value {
    let first = process.groups.first().map(|group| &group.state);
    json!({
        "pid": process.pid,
        "name": printable(&process.name),
        "pids_in_namespaces": process.numbers,
        "threads": process.threads(),
        "consistent": process.consistent(),
        "differs": process.differs(),
        "flags": process.flags,
        "groups": process.groups.iter().map(|one| group(one, first, names)).collect::<Vec<_>>(),
        "workers": process.workers.iter().map(|one| worker(one, first, names)).collect::<Vec<_>>(),
        "failures": process.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn group(group: &Group, first: Option<&State>, names: &mut Names) -> Value {
    json!({
        "differs": group.differs,
        "threads": group.threads.iter().map(thread).collect::<Vec<_>>(),
        "state": state(&group.state, first, names),
    })
}

fn worker(worker: &Worker, first: Option<&State>, names: &mut Names) -> Value {
    json!({
        "tid": worker.thread.tid,
        "name": printable(&worker.thread.name),
        "kind": worker.kind,
        "keeps": worker.keeps,
        "state": state(&worker.state, first, names),
    })
}

fn thread(thread: &Thread) -> Value {
    json!({ "tid": thread.tid, "name": printable(&thread.name) })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "expected": failure.expected,
        "found": failure.found,
        "first": failure.thread.as_ref().map(thread),
        "threads": failure.threads,
    })
}

#[derive(Serialize)]
struct Named<'a> {
    id: u32,
    name: Option<&'a str>,
}

fn state(state: &State, first: Option<&State>, names: &mut Names) -> Value {
    let own = &state.credentials;
    let mut user = |id| json!(Named { id, name: names.user(id) });
    let uid = ids(own.user, &mut user);
    let mut group = |id| json!(Named { id, name: names.group(id) });
    let gid = ids(own.group, &mut group);
    let groups: Vec<_> = own.groups.iter().map(|&id| group(id)).collect();
    let namespaces = state.namespaces.as_ref().map(|namespaces| {
        let pairs = NAMESPACES.iter().zip(namespaces);
        let seen = pairs.filter_map(|(&name, number)| Some((name.to_owned(), json!((*number)?))));
        seen.collect::<Map<_, _>>()
    });
    json!({
        "uid": uid,
        "gid": gid,
        "groups": groups,
        "capabilities": own.sets.to_string(),
        "effective": set(own.sets.effective),
        "permitted": set(own.sets.permitted),
        "inheritable": set(own.sets.inheritable),
        "ambient": set(own.ambient),
        "bounding": set(own.bounding),
        "no_new_privs": own.no_new_privs,
        "seccomp": { "mode": names::seccomp_mode(own.seccomp), "filters": own.filters },
        "namespaces": namespaces,
        "other_namespaces": first.map(|first| state.other_namespaces(first)).unwrap_or_default(),
        "label": state.label.as_deref().map(printable),
        "scheduling": {
            "policy": names::policy(state.scheduling),
            "priority": state.scheduling.priority,
        },
    })
}

fn ids(ids: Ids, mut named: impl FnMut(u32) -> Value) -> Value {
    json!({
        "real": named(ids.real),
        "effective": named(ids.effective),
        "saved": named(ids.saved),
        "fs": named(ids.filesystem),
    })
}

fn set(set: CapabilitySet) -> Vec<String> {
    set.iter().map(|one| one.to_string()).collect()
}
