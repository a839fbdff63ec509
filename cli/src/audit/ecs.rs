//! `--format ecs`: one line of JSON for each thread, with the field names of the Elastic Common Schema 8.
//!
//! A field that the schema has no name for is under `psx`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libpsx::process::CapabilitySet;
use serde_json::{Value, json};

use super::look::{Audit, Audited};
use super::names::{self, Names};
use super::process::{Alike, Group, Thread};
use super::state::State;
use crate::terminal::printable;

/// The version of the schema.
const VERSION: &str = "8.17.0";

/// Returns the lines.
pub(crate) fn render(audit: &Audit, names: &mut Names) -> String {
    let now = timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let mut text = String::new();
    for audited in &audit.processes {
        for group in &audited.process.groups {
            // In the order of the threads, each with its own state.
            let alike = group.alike();
            let mut threads: Vec<(&Alike, &Thread)> = alike
                .flat_map(|alike| alike.threads.iter().map(move |thread| (alike, thread)))
                .collect();
            threads.sort_by_key(|(_, thread)| thread.tid);
            for (alike, thread) in threads {
                let state = &alike.state;
                let line = document(audited, (group, state), thread, &now, names);
                text += &format!("{line}\n");
            }
        }
    }
    text
}

fn document(
    audited: &Audited,
    (group, state): (&Group, &State),
    thread: &Thread,
    now: &str,
    names: &mut Names,
) -> Value {
    let (process, identity) = (&audited.process, &audited.process.identity);
    let own = &state.credentials;
    let mut user = |id: u32| json!({ "id": id.to_string(), "name": names.user(id) });
    let (effective, real, saved) =
        (user(own.user.effective), user(own.user.real), user(own.user.saved));
    let mut of_group = |id: u32| json!({ "id": id.to_string(), "name": names.group(id) });
    let main = of_group(own.group.effective);
    let (real_group, saved_group) = (of_group(own.group.real), of_group(own.group.saved));
    let supplemental: Vec<_> = own.groups.iter().map(|&id| of_group(id)).collect();
    let args: Vec<_> = identity.command.iter().map(|one| printable(one)).collect();
    let outcome = if process.diverges() || audited.violates() {
        "failure"
    } else if process.complete && audited.as_expected() {
        "success"
    } else {
        "unknown"
    };
    json!({
        "@timestamp": now,
        "ecs": { "version": VERSION },
        "event": {
            "kind": "state",
            "category": ["process"],
            "type": ["info"],
            "module": "psx",
            "dataset": "psx.audit",
            "outcome": outcome,
        },
        "process": {
            "pid": process.pid,
            "name": printable(&process.name),
            "args": args,
            "args_count": args.len(),
            "command_line": args.join(" "),
            "parent": { "pid": identity.parent },
            "working_directory": state.directories.as_ref().map(|both| printable(&both.cwd)),
            "user": effective,
            "real_user": real,
            "saved_user": saved,
            "group": main,
            "real_group": real_group,
            "saved_group": saved_group,
            "supplemental_groups": supplemental,
            "thread": {
                "id": thread.tid,
                "name": printable(&thread.name),
                "capabilities": {
                    "effective": set(own.sets.effective),
                    "permitted": set(own.sets.permitted),
                },
            },
        },
        "service": { "name": identity.unit.as_ref().map(|unit| printable(unit.as_bytes())) },
        "container": {
            "id": identity.container.as_ref().map(|one| printable(one.id.as_bytes())),
            "runtime": identity.container.as_ref().and_then(|one| one.engine),
        },
        "psx": {
            "verdict": audited.verdict(),
            "complete": process.complete,
            "consistent": process.consistent(),
            "as_expected": audited.as_expected(),
            "differs": group.differs,
            "capabilities": {
                "inheritable": set(own.sets.inheritable),
                "ambient": set(own.ambient),
                "bounding": set(own.bounding),
            },
            "no_new_privs": own.no_new_privs,
            "seccomp": { "mode": names::seccomp_mode(own.seccomp), "filters": own.filters },
            "root": state.directories.as_ref().map(|both| printable(&both.root)),
        },
    })
}

/// Returns the capabilities in the schema's words: `CAP_NET_ADMIN`, or the number if it has no name.
fn set(set: CapabilitySet) -> Vec<String> {
    set.iter().map(|one| one.to_string().to_uppercase()).collect()
}

/// Writes a time as RFC 3339 wants it, in UTC.
pub(crate) fn timestamp(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that a leap day is the last day of a year. 400 years have 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), wanted);
        }
    }
}
