//! The interpreter of seccomp programs compared with the kernel: the accepted programs, and their results.
// The kernel is asked with 64-bit arguments.
#![cfg(target_pointer_width = "64")]
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use privileges::Instruction;
use privileges::bpf::{Action, Program, SeccompData};
use support::{forked_status, isolated, random, seed};

const WATCHDOG: Duration = Duration::from_secs(120);
/// No system call has this number.
const NUMBER: u32 = 3999;

fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Installs the program in this thread, and returns whether the kernel accepts it.
fn install(program: &[Instruction]) -> bool {
    let header = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: it takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &header) } == 0;
    set || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}

/// Returns a random number that programs compare with and compute with.
fn number(state: &mut u64) -> u32 {
    let any = random(state) as u32;
    match random(state) % 6 {
        0 => any % 4,
        1 => any % 70,
        2 => 1 << (any % 32),
        3 => u32::MAX - any % 3,
        4 => NUMBER,
        _ => any,
    }
}

/// Returns a random body in which most instructions are valid. With `wild` some are invalid.
fn body(state: &mut u64, length: usize, wild: bool) -> Vec<Instruction> {
    const CODES: [u16; 33] = [
        0x20, 0x20, 0x20, 0x80, 0x00, 0x60, 0x81, 0x01, 0x61, 0x02, 0x03, 0x04, 0x0c, 0x14, 0x1c,
        0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0xa4, 0xac, 0x84,
        0x07, 0x87, 0x05,
    ];
    const JUMPS: [u16; 8] = [0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d];
    let mut program = Vec::new();
    for at in 0..length {
        // The three instructions of the end follow.
        let left = (length - at) as u32 + u32::from(wild && random(state) % 20 == 0) * 4;
        if random(state) % 4 == 0 {
            let code = JUMPS[random(state) as usize % JUMPS.len()];
            let mut target = || (random(state) % u64::from(left.min(9))) as u8;
            let (jt, jf) = (target(), target());
            program.push(step(code, jt, jf, number(state)));
            continue;
        }
        let code = CODES[random(state) as usize % CODES.len()];
        let mut k = match code {
            // The instruction pointer is left out, because the test does not know it.
            0x20 => {
                [0, 4, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60][random(state) as usize % 14]
            }
            0x60 | 0x61 | 0x02 | 0x03 => random(state) as u32 % 16,
            0x34 => number(state).max(1),
            0x64 | 0x74 => number(state) % 32,
            0x05 => random(state) as u32 % left.min(9),
            _ => number(state),
        };
        let mut code = code;
        if wild && random(state) % 40 == 0 {
            match random(state) % 3 {
                0 => code = random(state) as u16 & 0xff,
                1 => k = number(state),
                _ => k = k.wrapping_add(16),
            }
        }
        program.push(step(code, 0, 0, k));
    }
    program
}

/// Returns the program with `body`: ERRNO with twelve bits of A for call `NUMBER`, and ALLOW for all other calls.
fn whole(body: Vec<Instruction>) -> Vec<Instruction> {
    let mut program = vec![
        step(0x20, 0, 0, 0),
        step(0x15, 1, 0, NUMBER),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    program.extend(body);
    program.push(step(0x54, 0, 0, 0xfff));
    program.push(step(0x44, 0, 0, libc::SECCOMP_RET_ERRNO));
    program.push(step(0x16, 0, 0, 0));
    program
}

/// Writes to every word of memory, so that more programs may read them.
fn prepared(state: &mut u64) -> Vec<Instruction> {
    (0..16).filter(|_| random(state) % 8 != 0).map(|word| step(0x02, 0, 0, word)).collect()
}

/// Makes the call, and returns its error number, or 0.
fn ask_kernel(arguments: [u64; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: there is no such call.
    let value = unsafe { libc::syscall(libc::c_long::from(NUMBER), a, b, c, d, e, f) };
    if value == -1 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { value as i32 }
}

#[test]
fn actions_match_the_kernel() {
    isolated("actions_match_the_kernel", WATCHDOG, || {
        let mut state = seed();
        let (mut compared, mut killed) = (0, 0);
        for round in 0..1000 {
            let length = 1 + random(&mut state) as usize % 40;
            let program = loop {
                let mut made = prepared(&mut state);
                made.extend(body(&mut state, length, false));
                let program = whole(made);
                if Program::new(&program).is_ok() {
                    break program;
                }
            };
            let checked = Program::new(&program).unwrap();
            let calls: Vec<[u64; 6]> = (0..8)
                .map(|_| {
                    std::array::from_fn(|_| {
                        u64::from(number(&mut state)) << 32 | u64::from(number(&mut state))
                    })
                })
                .collect();
            for arguments in calls {
                let action = checked.evaluate(&SeccompData::native(NUMBER, arguments));
                let status = forked_status(|| {
                    assert!(install(&program), "round {round}: {program:?}");
                    let found = ask_kernel(arguments);
                    let Action::Errno(wanted) = action else {
                        println!("round {round}: {action:?}, but {found}: {program:?}");
                        support::end(1)
                    };
                    if found != i32::from(wanted) {
                        println!(
                            "round {round}: {wanted} but {found} for {arguments:x?}: {program:?}"
                        );
                        support::end(1);
                    }
                });
                match action {
                    Action::Errno(_) => assert_eq!(status, 0, "round {round}: {program:?}"),
                    // A division by 0.
                    Action::KillThread => {
                        assert_eq!(status & 0x7f, libc::SIGSYS, "round {round}: {program:?}");
                        killed += 1;
                    }
                    other => panic!("round {round}: {other:?}: {program:?}"),
                }
                compared += 1;
            }
        }
        println!("{compared} verdicts, {killed} of them for a division by 0");
        assert!(compared == 8000 && killed < compared / 2);
    });
}

#[test]
fn accepted_programs_match_the_kernel() {
    isolated("accepted_programs_match_the_kernel", WATCHDOG, || {
        let mut state = seed();
        let mut taken = 0;
        for round in 0..2000 {
            let mut program = prepared(&mut state);
            let length = 1 + random(&mut state) as usize % 12;
            program.extend(body(&mut state, length, true));
            let mut program = whole(program);
            if random(&mut state) % 20 == 0 {
                program.pop();
            }
            let ours = Program::new(&program);
            let status = forked_status(|| support::end(if install(&program) { 0 } else { 7 }));
            assert_eq!(status == 0, ours.is_ok(), "round {round}: {ours:?}: {program:?}");
            taken += usize::from(ours.is_ok());
        }
        println!("{taken} of 2000 programs taken");
        assert!((200..1800).contains(&taken), "{taken}");
    });
}

#[test]
fn return_values_map_to_actions() {
    for (value, action) in [
        (libc::SECCOMP_RET_KILL_PROCESS, Action::KillProcess),
        (libc::SECCOMP_RET_KILL_THREAD, Action::KillThread),
        (libc::SECCOMP_RET_TRAP | 7, Action::Trap),
        (libc::SECCOMP_RET_ERRNO | 13, Action::Errno(13)),
        (libc::SECCOMP_RET_ERRNO | 0xffff, Action::Errno(4095)),
        (libc::SECCOMP_RET_USER_NOTIF, Action::Notify),
        (libc::SECCOMP_RET_TRACE, Action::Trace),
        (libc::SECCOMP_RET_LOG, Action::Log),
        (libc::SECCOMP_RET_ALLOW, Action::Allow),
        (0x1234_0000, Action::KillProcess),
    ] {
        assert_eq!(Action::from_return_value(value), action, "{value:#x}");
    }
}

/// Reads the fields of a call at their offsets. A filter for another CPU's convention gets another value.
#[test]
fn fields_are_read_by_offset() {
    let call = SeccompData {
        nr: 1,
        arch: 2,
        instruction_pointer: 0x4_0000_0003,
        args: std::array::from_fn(|n| (2 * n as u64 + 6) << 32 | (2 * n as u64 + 5)),
    };
    let words = if cfg!(target_endian = "little") { 0..16 } else { 0..2 };
    for word in words {
        let program = [
            step(0x20, 0, 0, word * 4),
            step(0x44, 0, 0, libc::SECCOMP_RET_ERRNO),
            step(0x16, 0, 0, 0),
        ];
        let found = Program::new(&program).unwrap().evaluate(&call);
        assert_eq!(found, Action::Errno(word as u16 + 1));
    }
}
