//! A program's own handler for SIGSYS that answers trapped calls in place of the kernel.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use super::{LOWER, cpu, every_form, step};

/// The number of calls that the handler has answered.
pub static TRAPPED: AtomicUsize = AtomicUsize::new(0);

/// After this many answers the handler returns `-EPERM`.
pub static EMULATED_CALLS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The latest trapped call.
pub static LATEST: AtomicI32 = AtomicI32::new(-1);

/// Returns the number of the trapped call.
pub fn number(info: *mut libc::siginfo_t) -> libc::c_long {
    // struct siginfo of SIGSYS: the number comes after three ints, which are aligned, and an address.
    const ADDRESS_AT: usize = (3 * size_of::<i32>()).next_multiple_of(size_of::<usize>());
    const AT: usize = (ADDRESS_AT + size_of::<usize>()) / size_of::<i32>();
    // SAFETY: the kernel has filled in the structure.
    libc::c_long::from(unsafe { info.cast::<i32>().wrapping_add(AT).read() })
}

extern "C" fn emulate(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let number = number(info);
    LATEST.store(number as i32, SeqCst);
    if TRAPPED.fetch_add(1, SeqCst) < EMULATED_CALLS.load(SeqCst) {
        answer(number, context);
    } else {
        refuse(context);
    }
}

/// Called in a handler: makes the trapped call, and leaves what the kernel returned where the interrupted code finds it. A
/// filter of [`trapping`] lets it pass.
pub fn answer(number: libc::c_long, context: *mut libc::c_void) {
    // SAFETY: the kernel has written the frame.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: the interrupted code makes this call with these arguments.
    let result = unsafe { cpu::call(number, cpu::arguments(context)) };
    cpu::set_result(context, result);
}

/// Returns whether a handler can make the trapped call: it needs all arguments. Records a skipped test if it cannot.
pub fn can_answer() -> bool {
    if !cpu::TRAPS_KEEP_ARGUMENTS {
        super::skipped("on this CPU, Linux does not keep the first argument of a trapped call");
    }
    cpu::TRAPS_KEEP_ARGUMENTS
}

/// Called in a handler: lets the trapped call fail with EPERM.
pub fn refuse(context: *mut libc::c_void) {
    // SAFETY: the kernel has written the frame.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    cpu::set_result(context, -(libc::EPERM as isize));
}

/// Makes the handler emulate the kernel from now on.
pub fn emulate_trapped_calls() {
    on_sigsys(emulate);
}

/// Installs a handler for SIGSYS.
pub fn on_sigsys(handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) {
    // SAFETY: all-zero is a valid value of the structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) }, 0);
}

/// Returns a filter that traps these calls, except those of the emulator.
pub fn trapping(calls: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let (number_at, instruction_at) = (0, 8 + LOWER);
    let own = cpu::address_of_calls() as u32;
    let mut program = vec![
        step(load, 0, 0, instruction_at),
        step(equal, 0, 1, own),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(load, 0, 0, number_at),
    ];
    for call in every_form(calls) {
        program.push(step(equal, 0, 1, call as u32));
        program.push(step(answer, 0, 0, libc::SECCOMP_RET_TRAP));
    }
    program.push(step(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// Removes the alternate stack: two handlers and their frames need more space than std's has.
pub fn without_alternate_stack() {
    let none =
        libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) }, 0);
}

/// Called in a handler. The interrupted code does not continue: the thread continues at `place` on a new stack, with no
/// signal blocked, as after siglongjmp(3).
pub fn leave_by_jump(context: *mut libc::c_void, place: extern "C" fn() -> !) {
    // SAFETY: the kernel has written the frame.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    cpu::go_on_at(context, place, super::raw::memory(256 << 10) + (256 << 10));
    let mask = (&raw mut context.uc_sigmask).cast::<u64>();
    // SAFETY: the kernel's set has 64 signals. On 32-bit x86, what follows it in the frame is not the rest of the C
    // library's larger set, but the state of the x87 unit.
    unsafe { mask.write_unaligned(0) };
}
