//! Measures the size of libpsx.so, beside the original.

use crate::engines::output_of;

/// Returns a line per library: the size of its stripped file, and of the code in it.
pub(crate) fn of_libraries() -> Vec<String> {
    let mut lines = Vec::new();
    let built = output_of("cargo", &["build", "-q", "--release", "-p", "libpsx-capi"]);
    if built.is_some() {
        lines.extend(of("ours", "target/release/libpsx.so"));
    }
    let original = "find target/peers/sid/usr/lib -name 'libpsx.so.2.*'";
    if let Some(path) = output_of("sh", &["-c", original]).filter(|path| !path.is_empty()) {
        lines.extend(of("C libpsx", &path));
    }
    lines
}

fn of(name: &str, path: &str) -> Option<String> {
    let stripped = "target/bench/stripped.so";
    output_of("strip", &["-o", stripped, path])?;
    let bytes = std::fs::metadata(stripped).ok()?.len();
    let table = output_of("size", &["-A", "-d", stripped])?;
    let section = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let total = output_of("size", &["-B", "-d", stripped])?;
    let mut columns = total.lines().nth(1)?.split_whitespace();
    let (text, data, bss) = (columns.next()?, columns.next()?, columns.next()?);
    let code = section(".text")?;
    Some(format!("| {name} | {bytes} | {code} | {text} | {data} | {bss} |"))
}
