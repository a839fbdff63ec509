//! `--diff FILE`: what changed since a state was saved with `--save`, or with `--json`.
//!
//! Process IDs change with every restart, so processes are compared by what they are: the unit or container engine, and
//! the name. All processes with the same unit and name are one program. A program has a set of states, those of its
//! groups of threads, and of the kernel workers that keep what no thread has. Two sets are equal if they contain the same
//! states; how many threads have each does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use super::json::SCHEMA;
use super::look::Audit;

/// Members of a state that change with each start of a process, or that daemons set per thread on purpose.
const SKIPPED: [&str; 7] =
    ["namespaces", "other_namespaces", "affinity", "mems", "nice", "io_priority", "timer_slack_ns"];

/// A state that was saved.
pub(crate) struct Saved {
    programs: Programs,
}

/// The unit, container engine and name of a program.
type Key = (String, String);
type State = BTreeMap<String, String>;
type Programs = BTreeMap<Key, BTreeSet<State>>;

/// What changed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Changes {
    changes: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    unit: String,
    name: String,
    kind: Kind,
    /// The fields that changed, with the old and the new value.
    fields: Vec<(String, Option<String>, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// No process of this program ran before.
    NewProgram,
    /// No process of this program runs any more.
    ProgramEnded,
    /// Threads have another state than any thread had before.
    Changed,
    /// No thread has this state any more.
    StateEnded,
}

impl Saved {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let saved: Value = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not a saved state; no process was read"))?;
        let schema = saved.get("schema").and_then(Value::as_u64);
        if schema != Some(u64::from(SCHEMA)) {
            let found = schema.map_or_else(|| "none".to_owned(), |schema| schema.to_string());
            bail!("{shown} has schema {found}, and this psx reads {SCHEMA}: save the state again");
        }
        Ok(Self { programs: programs(&saved) })
    }

    /// Returns what changed from the saved state to this one.
    pub(crate) fn changes(&self, now: &Value) -> Changes {
        let now = programs(now);
        let mut changes = Vec::new();
        let mut keys: BTreeSet<&Key> = self.programs.keys().collect();
        keys.extend(now.keys());
        for key in keys {
            let (unit, name) = key.clone();
            let mut add = |kind, fields| {
                changes.push(Change { unit: unit.clone(), name: name.clone(), kind, fields });
            };
            match (self.programs.get(key), now.get(key)) {
                (None, Some(states)) => {
                    for state in states {
                        add(Kind::NewProgram, between(&State::new(), state));
                    }
                }
                (Some(_), None) => add(Kind::ProgramEnded, Vec::new()),
                (Some(old), Some(new)) => {
                    let mut left: Vec<_> = old.difference(new).collect();
                    for state in new.difference(old) {
                        let nearest = old.iter().min_by_key(|old| between(old, state).len());
                        let none = State::new();
                        let nearest = nearest.unwrap_or(&none);
                        left.retain(|old| *old != nearest);
                        add(Kind::Changed, between(nearest, state));
                    }
                    for state in left {
                        add(Kind::StateEnded, between(state, &State::new()));
                    }
                }
                (None, None) => {}
            }
        }
        Changes { changes }
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the changes and the findings about the present state.
    pub(crate) fn render(&self, json: bool, audit: &Audit, findings: &str) -> Result<String> {
        if json {
            let mut report = serde_json::to_value(self)?;
            if let Some(members) = report.as_object_mut() {
                members.insert("schema".to_owned(), SCHEMA.into());
                members.insert("consistent".to_owned(), audit.consistent().into());
                members.insert("as_expected".to_owned(), audit.as_expected().into());
            }
            return Ok(serde_json::to_string_pretty(&report)? + "\n");
        }
        let mut text = String::new();
        for change in &self.changes {
            change.describe(&mut text);
        }
        text += findings;
        // Writing to a String cannot fail.
        let _ = match self.changes.len() {
            0 => writeln!(text, "nothing changed since the state was saved"),
            1 => writeln!(text, "1 change since the state was saved"),
            n => writeln!(text, "{n} changes since the state was saved"),
        };
        Ok(text)
    }
}

impl Change {
    fn describe(&self, text: &mut String) {
        let subject = match self.unit.as_str() {
            "" => self.name.clone(),
            unit => format!("{} ({unit})", self.name),
        };
        let what = match self.kind {
            Kind::NewProgram => "runs now and did not run before",
            Kind::ProgramEnded => "does not run any more",
            Kind::Changed => "threads have a new state",
            Kind::StateEnded => "no thread has this state any more",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{subject}: {what}");
        for (field, old, new) in &self.fields {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            let _ = match self.kind {
                Kind::Changed => {
                    writeln!(text, "    {field}: {} -> {}", shown(old), shown(new))
                }
                // A whole state: only what an operator looks for first.
                _ if [
                    "uid",
                    "gid",
                    "capabilities",
                    "no_new_privs",
                    "seccomp",
                    "kernel worker",
                    "keeps",
                ]
                .contains(&field.as_str()) =>
                {
                    writeln!(text, "    {field}: {}", shown(if new.is_some() { new } else { old }))
                }
                _ => Ok(()),
            };
        }
    }
}

/// Returns the members in which two states differ.
fn between(old: &State, new: &State) -> Vec<(String, Option<String>, Option<String>)> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let both = keys.into_iter().map(|key| (key, old.get(key), new.get(key)));
    let changed = both.filter(|(_, old, new)| old != new);
    changed.map(|(key, old, new)| (key.clone(), old.cloned(), new.cloned())).collect()
}

fn programs(report: &Value) -> Programs {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let array = |value: &Value, name: &str| -> Vec<Value> {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut found = Programs::new();
    for process in array(report, "processes") {
        let engine = process.get("container").and_then(|container| container.get("engine"));
        let in_container = process.get("container").is_some_and(|container| !container.is_null());
        // The unit of a container has the ID of the container in its name, which is new each time.
        let unit = match in_container {
            true => format!("container {}", text(engine)),
            false => text(process.get("unit")),
        };
        let states = found.entry((unit, text(process.get("name")))).or_default();
        for worker in array(&process, "workers") {
            let keeps = worker.get("keeps").map(short).filter(|keeps| keeps != "none");
            if let (Some(keeps), Some(members)) =
                (keeps, worker.get("state").and_then(Value::as_object))
            {
                let mut state = flat(members);
                state.insert("kernel worker".to_owned(), text(worker.get("kind")));
                state.insert("keeps".to_owned(), keeps);
                states.insert(state);
            }
        }
        for group in array(&process, "groups") {
            for alike in [vec![group.clone()], array(&group, "others")].concat() {
                let members = alike.get("state").and_then(Value::as_object);
                states.insert(members.map(flat).unwrap_or_default());
            }
        }
    }
    found
}

/// Returns a state as pairs of names and short texts.
fn flat(members: &Map<String, Value>) -> State {
    let kept = members.iter().filter(|(name, _)| !SKIPPED.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), short(value))).collect()
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".to_owned(),
        Value::Array(all) => all.iter().map(short).collect::<Vec<_>>().join(" "),
        Value::Object(members) => match (members.get("id"), members.get("name")) {
            // A user or a group.
            (Some(id), Some(Value::String(name))) => format!("{name} ({})", short(id)),
            (Some(id), Some(Value::Null)) => short(id),
            _ => {
                let all: Vec<_> = members.iter().map(|(name, one)| (name, short(one))).collect();
                let alike = all
                    .windows(2)
                    .all(|pair| pair.first().map(|one| &one.1) == pair.last().map(|one| &one.1));
                match all.as_slice() {
                    // Four IDs that are the same.
                    [(_, value), ..] if alike && all.len() == 4 => value.clone(),
                    _ => all
                        .iter()
                        .map(|(name, one)| format!("{name} {one}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                }
            }
        },
        other => other.to_string(),
    }
}
