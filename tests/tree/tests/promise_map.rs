//! The map in tests/README.md agrees with the tree: each promise has a row, each `// P5:` in the source is listed in the
//! row of P5 and the other way round, and each test file is listed in the row that its name belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// P1 to P12.
const PROMISES: u32 = 12;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The texts between backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A row: the files of the source that keep the promise, and its tests.
struct Row {
    code: BTreeSet<String>,
    tests: BTreeSet<String>,
}

/// The rows of the map by their promise, and the test files that belong to no single promise.
fn map() -> (BTreeMap<u32, Row>, BTreeSet<String>) {
    let text = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let (mut rows, mut others) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(number) = cells[0].strip_prefix('P').and_then(|number| number.parse().ok()) {
            let row = Row { code: quoted(cells[2]), tests: quoted(cells[3]) };
            assert!(rows.insert(number, row).is_none(), "P{number} has two rows");
        } else if cells[0].starts_with('`') {
            others.extend(quoted(cells[0]));
        }
    }
    (rows, others)
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The promises that a line is tagged with: "// P5: why" or "// P2, P5: why".
fn tags(line: &str) -> Vec<u32> {
    let Some(comment) = line.trim_start().strip_prefix("// P") else { return Vec::new() };
    let Some((numbers, _)) = comment.split_once(':') else { return Vec::new() };
    numbers.split(", P").map_while(|number| number.parse().ok()).collect()
}

#[test]
fn each_promise_has_a_row_and_each_tag_is_listed() {
    let (rows, _) = map();
    let all: Vec<_> = (1..=PROMISES).collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), all, "tests/README.md");
    let root = root();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut tagged = BTreeMap::<u32, BTreeSet<String>>::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        for number in fs::read_to_string(&file).unwrap().lines().flat_map(tags) {
            assert!(all.contains(&number), "{name} is tagged with P{number}");
            tagged.entry(number).or_default().insert(name.clone());
        }
    }
    for (number, row) in rows {
        let tagged = tagged.remove(&number).unwrap_or_default();
        assert!(!tagged.is_empty(), "no line of src is tagged with P{number}");
        assert_eq!(
            row.code, tagged,
            "P{number}: the files of tests/README.md, and those with a tag"
        );
    }
}

#[test]
fn each_test_file_is_in_its_row() {
    let (rows, others) = map();
    let tests = root().join("tests");
    let mut prefixed = BTreeMap::<u32, BTreeSet<String>>::new();
    for entry in fs::read_dir(&tests).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".rs") {
            continue;
        }
        let number = name.strip_prefix('p').and_then(|rest| rest.get(..2)?.parse().ok());
        match number {
            Some(number) => assert!(prefixed.entry(number).or_default().insert(name)),
            None => assert!(others.contains(&name), "tests/README.md does not list {name}"),
        }
    }
    for (number, row) in &rows {
        for name in &row.tests {
            let path = if name.contains('/') { root().join(name) } else { tests.join(name) };
            assert!(path.exists(), "P{number} lists {name}, which does not exist");
        }
        let own = prefixed.remove(number).unwrap_or_default();
        assert!(!own.is_empty(), "P{number} has no test file of its own");
        let missing: Vec<_> = own.difference(&row.tests).collect();
        assert!(missing.is_empty(), "the row of P{number} lacks {missing:?}");
    }
    assert!(prefixed.is_empty(), "no such promise: {prefixed:?}");
    for name in others {
        let path = if name.contains('/') { root().join(&name) } else { tests.join(&name) };
        assert!(path.exists(), "tests/README.md lists {name}, which does not exist");
    }
}

/// Each promise of the engine's documentation is explained to users, and the other way round.
#[test]
fn the_promises_are_numbered_alike() {
    let text = fs::read_to_string(root().join("src/docs/promises.md")).unwrap();
    for number in 1..=PROMISES {
        assert!(text.contains(&format!("**P{number}. ")), "src/docs/promises.md lacks P{number}");
    }
}

/// The files that ARCHITECTURE.md names exist.
#[test]
fn the_files_of_the_architecture_exist() {
    let root = root();
    let mut files = Vec::new();
    for directory in ["src", "privileges", "capi", "cli", "bench", "examples", "book", "tests"] {
        sources(&root.join(directory), &mut files);
    }
    let known: BTreeSet<_> =
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c));
    let named: BTreeSet<_> = words.filter(|word| word.ends_with(".rs")).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}");
}
