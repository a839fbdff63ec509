//! `psx audit` in a namespace or a root directory of its own: the processes of the host are not confined because psx is.

use super::*;

/// Runs a script as process 1 of a new PID namespace. Its arguments are a psx that every user can execute, and an empty
/// directory. Returns None if there can be no such namespaces.
fn in_namespaces(script: &str) -> Option<support::Finished> {
    const START: &str = r#"
        set -e
        mount --make-rprivate /
        psx=$1 empty=$2
        # Waits until process $1 has the name $2: it has gone where it shall be.
        is() { until [ "$(cat "/proc/$1/comm")" = "$2" ]; do sleep 0.01; done; }
        # Fails unless psx audit, started by the words after the number, ends with the number $1.
        ends() {
            wanted=$1; shift; code=0
            "$@" || code=$?
            [ "$code" = "$wanted" ] || { echo "exit status $code instead of $wanted: $*" >&2; exit 9; }
        }
    "#;
    if !is_root("namespaces") {
        return None;
    }
    let unshare = |script: &str, arguments: &[&std::path::Path]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"]);
        command.args(arguments);
        command
    };
    let own = readable_copy();
    let empty = own.with_extension("directory");
    std::fs::create_dir(&empty).unwrap();
    let arguments = [own.as_path(), empty.as_path()];
    let possible = Command::new("unshare").arg("--version").output().is_ok()
        && finish(unshare("mount --make-rprivate / && mount -t tmpfs none /tmp", &[]))
            .status
            .success();
    let found = possible.then(|| finish(unshare(&format!("{START}{script}"), &arguments)));
    std::fs::remove_file(&own).unwrap();
    std::fs::remove_dir(&empty).unwrap();
    if found.is_none() {
        support::skipped("no namespaces with mounts of their own");
    }
    found
}

#[track_caller]
fn succeeds(script: &str) {
    let Some(found) = in_namespaces(script) else { return };
    assert_eq!(found.status.code(), Some(0), "{}{}", found.stdout, found.stderr);
}

/// One process shares the mount namespace of process 1, another one has one for itself. psx has one too, as in a unit with
/// `PrivateTmp=`.
#[test]
fn a_namespace_of_psx_is_not_taken_for_one_of_the_process() {
    succeeds(
        r#"
        sleep 600 & shared=$!
        unshare --mount sleep 600 & private=$!
        is $shared sleep; is $private sleep
        for own in "" "unshare --mount"; do
            for expected in "namespaces>=mnt" "namespaces=mnt"; do
                ends 1 $own "$psx" audit --expect "$expected" $shared
                ends 0 $own "$psx" audit --expect "$expected" $private
            done
            ends 0 $own "$psx" audit --expect "namespaces=none" $shared
            ends 0 $own "$psx" audit --expect "namespaces<=mnt+net" $private
            ends 1 $own "$psx" audit --expect "namespaces<=net" $private
        done
        unit="$empty.service"
        for directive in PrivateTmp=yes RootDirectory=/srv; do
            printf '[Service]\nExecStart=/bin/true\n%s\n' $directive > "$unit"
            ends 1 unshare --mount "$psx" audit --unit "$unit" $shared
            ends 0 unshare --mount "$psx" audit --unit "$unit" $private
        done
        rm "$unit"
        "#,
    );
}

/// An ordinary user cannot see the namespaces of process 1, which is one of root.
#[test]
fn without_the_namespaces_of_process_1_a_namespace_is_unknown() {
    succeeds(
        r#"
        user="$psx run -u 65534 -g 65534 --groups none --"
        $user sleep 600 & pid=$!
        is $pid sleep
        ends 1 $user "$psx" audit --expect "namespaces>=mnt" $pid
        ends 2 unshare --mount $user "$psx" audit --expect "namespaces>=mnt" $pid
        ends 2 unshare --mount $user "$psx" audit --expect "namespaces=none" $pid
        ends 2 unshare --mount $user "$psx" audit --expect "namespaces=mnt" $pid
        ends 1 unshare --mount $user "$psx" audit --expect "namespaces>=mnt+net" $pid
        ends 0 unshare --mount $user "$psx" audit --expect "namespaces<=mnt+net" $pid
        unit="$empty.service"
        printf '[Service]\nExecStart=/bin/true\nRootDirectory=/srv\n' > "$unit"
        ends 2 unshare --mount $user "$psx" audit --unit "$unit" $pid
        rm "$unit"
        "#,
    );
}

/// A process of root with one harmless capability is `reduced` in a root directory of its own, and else `privileged`.
#[test]
fn a_root_directory_of_psx_is_not_taken_for_one_of_the_process() {
    succeeds(
        r#"
        mount -t tmpfs none "$empty"
        for place in /*; do
            if [ -L "$place" ]; then cp -P "$place" "$empty/"
            elif [ -d "$place" ]; then mkdir "$empty$place"; mount --rbind "$place" "$empty$place"
            fi
        done
        chmod 755 "$empty"
        root="$psx run --stay-root --keep-groups --bounding chown --no-new-privs"
        $root -- sleep 600 & outside=$!
        chroot "$empty" $root -- sleep 600 & inside=$!
        is $outside sleep; is $inside sleep
        ends 1 "$psx" audit --expect "verdict<=reduced" $outside
        ends 0 "$psx" audit --expect "verdict<=reduced" $inside
        ends 1 chroot "$empty" "$psx" audit --expect "verdict<=reduced" $outside
        ends 1 chroot "$empty" "$psx" audit --expect "verdict<=reduced" $inside
        umount -l "$empty"
        "#,
    );
}
