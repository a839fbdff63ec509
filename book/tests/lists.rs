//! The lists of the book are complete: the variants of all errors, the functions of the C headers, and the chapters.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The variants of the public enums in a source file, as `Enum::Variant`.
fn variants(path: &str, prefix: &str) -> Vec<String> {
    let file = syn::parse_file(&read(path)).unwrap();
    let enums = file.items.into_iter().filter_map(|item| match item {
        syn::Item::Enum(item) if matches!(item.vis, syn::Visibility::Public(_)) => Some(item),
        _ => None,
    });
    let names = enums.flat_map(|item| {
        let name = item.ident.to_string();
        let prefix = if name == "Error" { prefix } else { "" };
        item.variants
            .into_iter()
            .map(move |variant| format!("{prefix}{name}::{}", variant.ident))
            .collect::<Vec<_>>()
    });
    names.collect()
}

/// The texts between backquotes at the beginning of a table's rows.
fn first_cells(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect()
}

#[test]
fn each_variant_of_an_error_has_a_row() {
    let rows = first_cells(&read("book/src/errors.md"));
    let mut all = variants("src/error.rs", "");
    all.extend(variants("src/error/transaction.rs", ""));
    all.extend(variants("src/error/unreachable.rs", ""));
    // Not an error: what a thread can have for itself.
    all.retain(|name| !name.starts_with("SharedResource::"));
    all.extend(variants("privileges/src/error.rs", "privileges::"));
    assert!(all.len() > 40, "only {} variants were found", all.len());
    let missing: Vec<_> = all.iter().filter(|name| !rows.contains(*name)).collect();
    assert!(missing.is_empty(), "errors.md has no row for {missing:?}");
    let known: BTreeSet<_> = all.into_iter().collect();
    let unknown: Vec<_> = rows
        .iter()
        .filter(|name| {
            name.contains("::") && !name.starts_with("CallOutcome::") && !known.contains(*name)
        })
        .collect();
    assert!(unknown.is_empty(), "errors.md has rows for {unknown:?}, which do not exist");
}

/// Returns the functions that a C header declares with this prefix. Comments mention others.
fn declared(header: &str, prefix: &str) -> BTreeSet<String> {
    let code =
        |part: &str| part.split_once("*/").map_or(String::new(), |(_, code)| code.to_owned());
    let mut parts = header.split("/*");
    let first = parts.next().unwrap_or_default().to_owned();
    let header = &parts.map(code).fold(first, |all, part| all + &part);
    let mut found = BTreeSet::new();
    for (at, _) in header.match_indices(prefix) {
        let before = header.get(..at).and_then(|text| text.chars().last());
        let name: String = header
            .get(at..)
            .unwrap_or_default()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let after = header.get(at + name.len()..).unwrap_or_default();
        let is_word = before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_word && after.trim_start().starts_with('(') && !name.ends_with("_fn") {
            found.insert(name);
        }
    }
    found
}

#[test]
fn each_function_of_the_c_headers_is_in_the_book() {
    let book = read("book/src/coming-from-c.md");
    let own = declared(&read("capi/include/sys/psx_syscall.h"), "psx_");
    assert!(own.len() >= 6, "{own:?}");
    let missing: Vec<_> = own.iter().filter(|name| !book.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "coming-from-c.md lacks {missing:?}");
    let headers =
        ["target/peers/sid/usr/include/sys/capability.h", "/usr/include/sys/capability.h"];
    let Some(header) = headers.iter().find_map(|path| fs::read_to_string(root().join(path)).ok())
    else {
        println!(
            "SKIPPED: each_function_of_the_c_headers_is_in_the_book: there is no sys/capability.h of libcap"
        );
        return;
    };
    let cap = declared(&header, "cap_");
    assert!(cap.len() > 50, "only {} functions were found", cap.len());
    let missing: Vec<_> = cap.iter().filter(|name| !book.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "coming-from-c.md lacks {missing:?}");
}

#[test]
fn each_chapter_is_in_the_summary() {
    let summary = read("book/src/SUMMARY.md");
    for entry in fs::read_dir(root().join("book/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") && name != "SUMMARY.md" {
            assert!(summary.contains(&format!("({name})")), "SUMMARY.md lacks {name}");
        }
    }
}

/// A chapter with a program in Rust is one that lib.rs compiles.
#[test]
fn each_program_is_compiled() {
    let compiled = read("book/lib.rs");
    for entry in fs::read_dir(root().join("book/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") && read(&format!("book/src/{name}")).contains("\n```rust") {
            assert!(compiled.contains(&format!("\"src/{name}\"")), "book/lib.rs lacks {name}");
        }
    }
}
