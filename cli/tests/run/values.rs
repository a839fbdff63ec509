//! Empty values of options. A script writes them if a variable is empty.

use super::*;

const VALUES: [(&str, &str); 34] = [
    ("--user", ""),
    ("--user", " "),
    ("--group", ""),
    ("--groups", ""),
    ("--groups", ","),
    ("--ambient", ""),
    ("--inheritable", ""),
    ("--bounding", ""),
    ("--bounding", "~"),
    ("--iab", ""),
    ("--iab", "!"),
    ("--mode", ""),
    ("--securebits", ""),
    ("--securebits", ","),
    ("--seccomp", ""),
    ("--seccomp", "~"),
    ("--seccomp", " ~ "),
    ("--seccomp-error", ""),
    ("--landlock-ro", ""),
    ("--new-namespace", ""),
    ("--join-namespace", ""),
    ("--join-namespace", "net="),
    ("--chroot", ""),
    ("--chdir", ""),
    ("--umask", ""),
    ("--limit", "NOFILE="),
    ("--nice", ""),
    ("--scheduling", ""),
    ("--scheduling", "fifo:"),
    ("--io-priority", "realtime:"),
    ("--cpus", ""),
    ("--cpus", ","),
    ("--timer-slack", ""),
    ("--pdeathsig", ""),
];

#[test]
fn an_empty_value_does_not_remove_what_a_unit_says() {
    if !is_root("psx run") {
        return;
    }
    let path = std::env::temp_dir().join(format!("psx-values-{}.service", std::process::id()));
    std::fs::write(
        &path,
        "[Service]\nUser=65534\nGroup=65534\nSystemCallFilter=@system-service\nUMask=0077\nLimitNOFILE=64\n",
    )
    .unwrap();
    let unit = path.to_str().unwrap();
    for (option, value) in VALUES {
        for of_unit in [&["--from-unit", unit][..], &["--stay-root"]] {
            if (of_unit, option) == (&["--stay-root"], "--user") {
                continue; // clap refuses the pair
            }
            let found =
                run(&[of_unit, &[option, value, "--", "cat", "/proc/self/status"]].concat());
            let all = format!("{option} {value:?}: {}{}", found.stdout, found.stderr);
            assert_eq!(found.status.code(), Some(125), "{all}");
            assert!(found.stdout.is_empty(), "{all}");
            assert!(found.stderr.contains(option.trim_end_matches("-ro")), "{all}");
        }
    }
    assert_eq!(run(&["--from-unit", "", "--", "true"]).status.code(), Some(125));
    // A property is an assignment as in a unit: an empty one is a reset, or an error if systemd does not reset that directive.
    let with =
        |property| run(&["--from-unit", unit, "-p", property, "--", "cat", "/proc/self/status"]);
    let found = with("SystemCallFilter=");
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    let seen = fields(&found.stdout);
    assert_eq!((seen["Uid"].as_str(), seen["Umask"].as_str()), ("65534 65534 65534 65534", "0077"));
    assert_eq!(seen["Seccomp"], "0");
    let found = with("UMask=");
    assert_eq!(found.status.code(), Some(125), "{}", found.stdout);
    assert!(found.stderr.contains("does not reset this directive"), "{}", found.stderr);
    std::fs::remove_file(path).unwrap();
}
