//! `psx run --check`, while this process traces psx: psx is killed, or its child is stopped, at a chosen moment.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Instant;

use linux_raw_sys::ptrace::{
    PTRACE_GET_SYSCALL_INFO, PTRACE_SYSCALL_INFO_ENTRY, ptrace_syscall_info,
};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::{Killed, is_root, limit, psx};

/// The child is stopped before its first instruction, while psx does not trace it yet.
#[test]
fn a_stopped_child_is_traced_when_it_goes_on() {
    if !is_root("psx run") {
        return;
    }
    let (mut psx, pid) = traced_psx(
        &["sh", "-c", "cat /proc/self/status; ls -l /proc/self/fd"],
        ptrace::Options::PTRACE_O_TRACEFORK,
    );
    let program = loop {
        ptrace::cont(pid, None).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceEvent(_, _, event)
                if event == ptrace::Event::PTRACE_EVENT_FORK as i32 =>
            {
                break Pid::from_raw(i32::try_from(ptrace::getevent(pid).unwrap()).unwrap());
            }
            WaitStatus::Stopped(..) => {}
            end => panic!("psx ended: {end:?}"),
        }
    };
    psx.program.store(program.as_raw(), SeqCst);
    assert!(matches!(waitpid(program, None).unwrap(), WaitStatus::Stopped(..)));
    ptrace::detach(program, Signal::SIGSTOP).unwrap();
    until_state(program, "T");
    ptrace::detach(pid, None).unwrap();
    // psx waits for its child.
    until_state(pid, "S");
    kill(program, Signal::SIGCONT).unwrap();
    let said = psx.said();
    assert!(psx.child.0.wait().unwrap().success());
    assert!(said.contains("\nTracerPid:\t0\n"), "{said}");
    assert!(said.contains("\nSigBlk:\t0000000000000000\n"), "{said}");
    // psx keeps its own descriptors for itself.
    assert!(!said.contains("anon_inode"), "{said}");
}

/// psx is killed at the beginning and at the end of each of its calls, from the one that makes the child to the one that
/// lets the program go on. The program must not run. This process traces psx for that.
#[test]
fn the_program_does_not_run_if_psx_is_killed_before_the_check() {
    if !is_root("psx run") {
        return;
    }
    let mut round = 0;
    while let Some(call) = killed_at(round) {
        let Call { said, number, at_end } = call;
        assert_eq!(said, "", "killed at stop {round}: call {number}, at its end: {at_end}");
        round += 1;
    }
    assert!(round > 20, "psx made few calls: {round} stops");
}

/// The call at whose beginning or end psx was killed.
struct Call {
    number: u64,
    at_end: bool,
    /// What the program wrote.
    said: String,
}

/// Kills psx at the stop of that number after it has made the child. Returns None if the program has been let go before.
fn killed_at(round: usize) -> Option<Call> {
    let (mut psx, pid) = traced_psx(&["echo", "it ran"], ptrace::Options::PTRACE_O_TRACESYSGOOD);
    let mut number = 0;
    let program = loop {
        let info = next_call(pid);
        match info.op.into() {
            PTRACE_SYSCALL_INFO_ENTRY => number = entry(&info)[0],
            // SAFETY: the kernel says that this is the end of a call.
            _ => match unsafe { info.__bindgen_anon_1.exit }.rval {
                program if makes_a_process(number) && program > 0 => {
                    break Pid::from_raw(i32::try_from(program).unwrap());
                }
                _ => {}
            },
        }
    };
    psx.program.store(program.as_raw(), SeqCst);
    let mut at_end = true;
    for _ in 0..round {
        let info = next_call(pid);
        at_end = u32::from(info.op) != PTRACE_SYSCALL_INFO_ENTRY;
        if !at_end {
            let [call, request, of, ..] = entry(&info);
            number = call;
            if call == libc::SYS_ptrace as u64 && request == libc::PTRACE_DETACH as u64 {
                assert_eq!(of, program.as_raw() as u64);
                return None;
            }
        }
    }
    // The child goes as far as it can without psx.
    until_state(program, "StTZX");
    psx.child.0.kill().unwrap();
    psx.child.0.wait().unwrap();
    Some(Call { number, at_end, said: psx.said() })
}

/// Starts `psx run --check` with a program, and stops it after its own execve(2).
fn traced_psx(program: &[&str], options: ptrace::Options) -> (Psx, Pid) {
    let mut command = psx(&["run", "--stay-root", "--keep-groups", "--check", "--"]);
    command.args(program).stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let child = Killed(command.spawn().unwrap());
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap());
    assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(..)));
    ptrace::setoptions(pid, options).unwrap();
    let (ended, end) = channel::<()>();
    let program = Arc::new(AtomicI32::new(0));
    let (late, known) = (limit(), program.clone());
    std::thread::spawn(move || {
        if end.recv_timeout(late) == Err(RecvTimeoutError::Timeout) {
            // Whatever this test waits for comes to its end by that.
            for pid in [known.load(SeqCst), pid.as_raw()].into_iter().filter(|&pid| pid > 0) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    });
    (Psx { child, program, _ended: ended }, pid)
}

/// A psx that is killed, together with the program, if the test takes too long.
struct Psx {
    child: Killed,
    /// The process of the program, when it is known.
    program: Arc<AtomicI32>,
    _ended: Sender<()>,
}

impl Psx {
    /// Returns what the program has written when its end of the pipe is closed.
    fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.0.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

/// Lets psx run until the beginning or the end of a call. It gets the signals that come.
fn next_call(pid: Pid) -> ptrace_syscall_info {
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => return stopped_call(pid),
            WaitStatus::Stopped(_, sent) => signal = Some(sent),
            end => panic!("psx ended: {end:?}"),
        }
    }
}

/// Asks for the call at which a process is stopped. The function of nix gives the kernel a length of 0.
fn stopped_call(pid: Pid) -> ptrace_syscall_info {
    let mut info = MaybeUninit::<ptrace_syscall_info>::zeroed();
    // SAFETY: the kernel writes no more than the given length.
    let written = unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            PTRACE_GET_SYSCALL_INFO as usize,
            pid.as_raw(),
            size_of_val(&info),
            info.as_mut_ptr(),
        )
    };
    assert!(written > 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the structure has only numbers, so zeros are valid where the kernel wrote nothing.
    unsafe { info.assume_init() }
}

/// Returns the number and the first arguments of a call that begins.
fn entry(info: &ptrace_syscall_info) -> [u64; 3] {
    // SAFETY: the kernel says that this is the beginning of a call.
    let entry = unsafe { info.__bindgen_anon_1.entry };
    [entry.nr, entry.args[0], entry.args[1]]
}

fn makes_a_process(number: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    let forks = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork];
    #[cfg(not(target_arch = "x86_64"))]
    let forks = [libc::SYS_clone, libc::SYS_clone3];
    forks.iter().any(|&fork| fork as u64 == number)
}

/// Waits until a process has one of these states, as /proc shows them; X: there is none.
fn until_state(pid: Pid, states: &str) {
    let deadline = Instant::now() + limit();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('X');
        if states.contains(state) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "process {pid} has the state {state}, and not one of {states}"
        );
    }
}
