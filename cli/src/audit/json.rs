//! The report that `--json` prints: docs/audit-json.md.

use libpsx::process::{CapabilitySet, Ids};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::expect::Failure;
use super::look::{Audit, Audited};
use super::names::{self, Names};
use super::process::{Group, Thread, Worker};
use super::state::{NAMESPACES, Namespaces, State};
use crate::terminal::printable;

/// The number of the JSON's shape. Members may be added under the same number. If a member is removed or changes its
/// meaning, the number goes up.
pub(crate) const SCHEMA: u32 = 1;

/// Returns the whole report.
pub(crate) fn render(audit: &Audit, names: &mut Names) -> Value {
    json!({
        "schema": SCHEMA,
        "consistent": audit.consistent(),
        "as_expected": audit.as_expected(),
        "processes":
            audit.processes.iter().map(|one| process(one, audit, names)).collect::<Vec<_>>(),
        "unreadable": audit.unreadable,
        "hidden": audit.hidden,
        "kernel_threads": audit.kernel,
        "missing": audit.missing.iter().map(|rule| printable(rule.as_bytes())).collect::<Vec<_>>(),
    })
}

fn process(audited: &Audited, audit: &Audit, names: &mut Names) -> Value {
    let process = &audited.process;
    let identity = &process.identity;
    let first = process.groups.first().map(|group| &group.first.state);
    let own = audit.namespaces.as_ref();
    let state = |state: &State, names: &mut Names| self::state(state, first, own, names);
    let reasons = audited.judgement.as_ref().map(|one| one.reasons.clone()).unwrap_or_default();
    let container = identity
        .container
        .as_ref()
        .map(|found| json!({ "engine": found.engine, "id": printable(found.id.as_bytes()) }));
    json!({
        "pid": process.pid,
        "name": printable(&process.name),
        "parent": identity.parent,
        "start": identity.start,
        "command": identity.command.iter().map(|one| printable(one)).collect::<Vec<_>>(),
        "unit": identity.unit.as_ref().map(|unit| printable(unit.as_bytes())),
        "container": container,
        "dumpable": identity.dumpable,
        "verdict": audited.verdict(),
        "reasons": reasons,
        "varies": audited.varies,
        "unseen": process.unseen(),
        "pids_in_namespaces": process.numbers,
        "threads": process.threads(),
        "complete": process.complete,
        "consistent": process.consistent(),
        "differs": process.differs(),
        "flags": audited.flags,
        "groups": process
            .groups
            .iter()
            .map(|one| group(one, |found| state(found, names)))
            .collect::<Vec<_>>(),
        "workers": process
            .workers
            .iter()
            .map(|one| worker(one, state(&one.state, names)))
            .collect::<Vec<_>>(),
        "failures": audited.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn group(group: &Group, mut state: impl FnMut(&State) -> Value) -> Value {
    let threads = |threads: &[Thread]| threads.iter().map(thread).collect::<Vec<_>>();
    json!({
        "differs": group.differs,
        "varies": group.varies,
        "threads": group.threads().into_iter().map(thread).collect::<Vec<_>>(),
        "state": state(&group.first.state),
        "others": group
            .others
            .iter()
            .map(|one| json!({ "threads": threads(&one.threads), "state": state(&one.state) }))
            .collect::<Vec<_>>(),
    })
}

fn worker(worker: &Worker, state: Value) -> Value {
    json!({
        "tid": worker.thread.tid,
        "name": printable(&worker.thread.name),
        "kind": worker.kind,
        "keeps": worker.keeps,
        "state": state,
    })
}

fn thread(thread: &Thread) -> Value {
    json!({ "tid": thread.tid, "name": printable(&thread.name) })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "rule": failure.rule.as_ref().map(|rule| printable(rule.as_bytes())),
        "level": failure.level,
        "checked": failure.seen,
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

fn state(
    state: &State,
    first: Option<&State>,
    psx: Option<&Namespaces>,
    names: &mut Names,
) -> Value {
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
        "private_namespaces": state
            .namespaces
            .as_ref()
            .and(psx)
            .map(|psx| state.namespaces_beside(psx)),
        "label": state.label.as_deref().map(printable),
        "root": state.directories.as_ref().map(|both| printable(&both.root)),
        "cwd": state.directories.as_ref().map(|both| printable(&both.cwd)),
        "umask": state.umask.map(|umask| format!("{umask:04o}")),
        "personality": state.personality,
        "speculation": {
            "store_bypass": state.speculation.store_bypass.as_deref().map(printable),
            "indirect_branch": state.speculation.indirect_branch.as_deref().map(printable),
        },
        "scheduling": {
            "policy": names::policy(state.scheduling),
            "priority": state.scheduling.priority,
            "reset_on_fork": state.scheduling.reset_on_fork,
            "deadline": state.scheduling.deadline.map(|one| json!({
                "runtime_ns": one.runtime,
                "deadline_ns": one.deadline,
                "period_ns": one.period,
            })),
        },
        "affinity": printable(&state.affinity),
        "mems": printable(&state.mems),
        "nice": state.nice,
        "io_priority": state.io_priority.map(names::io_priority),
        "timer_slack_ns": state.timer_slack,
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
