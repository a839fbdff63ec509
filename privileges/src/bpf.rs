//! Classic BPF as seccomp(2) runs it: whether the kernel accepts a program, and which action the program returns.
//!
//! The semantics are those of `bpf_check_classic` and `bpf_convert_filter` (net/core/filter.c) and
//! `seccomp_check_filter` (kernel/seccomp.c). [`Plan`](crate::Plan) runs a filter with it over the calls that come
//! after the filter; a program that installs a filter by itself can do the same:
//!
//! ```
//! use privileges::bpf::{Action, Program, SeccompData};
//! use privileges::Instruction;
//!
//! // Returns SECCOMP_RET_ALLOW for every call.
//! let allow = [Instruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
//! let program = Program::new(&allow)?;
//! assert_eq!(program.evaluate(&SeccompData::native(39, [0; 6])), Action::Allow);
//! # Ok::<(), privileges::bpf::InvalidProgram>(())
//! ```
#![forbid(unsafe_code)]

use std::fmt;

use libpsx::process::Instruction;

/// The most instructions that a program may have, `BPF_MAXINSNS`.
const MOST: usize = 4096;
/// Words of scratch memory, `BPF_MEMWORDS`.
const MEMORY: u32 = 16;
/// `sizeof(struct seccomp_data)`.
const SIZE: u32 = 64;

/// `AUDIT_ARCH_*` of the CPU that this code is compiled for; `None` if this crate does not know it.
pub const NATIVE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else if cfg!(target_arch = "loongarch64") {
    Some(0xc000_0102)
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    Some(0xc000_0015)
} else if cfg!(target_arch = "s390x") {
    Some(0x8000_0016)
} else if cfg!(all(target_arch = "arm", target_endian = "little")) {
    Some(0x4000_0028)
} else if cfg!(target_arch = "x86") {
    Some(0x4000_0003)
} else {
    None
};

/// What a filter sees of a system call, `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeccompData {
    /// The number of the call.
    pub nr: u32,
    /// The system call convention, `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The address of the instruction after the call.
    pub instruction_pointer: u64,
    /// The arguments.
    pub args: [u64; 6],
}

impl SeccompData {
    /// Returns the data of a call in the convention of this CPU. The address of the instruction is 0.
    pub fn native(nr: u32, args: [u64; 6]) -> Self {
        let arch = NATIVE.unwrap_or_default();
        Self { nr, arch, instruction_pointer: 0, args }
    }

    /// Returns the 32-bit word at this offset.
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, second: bool| {
            let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
            u32::from_ne_bytes(if second { [e, f, g, h] } else { [a, b, c, d] })
        };
        match offset / 4 {
            0 => self.nr,
            1 => self.arch,
            2 | 3 => half(self.instruction_pointer, offset / 4 == 3),
            word => {
                let argument = word.saturating_sub(4) / 2;
                let value = self.args.get(argument as usize).copied().unwrap_or_default();
                half(value, word % 2 == 1)
            }
        }
    }
}

/// What the kernel does with a call, in the order of seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The kernel kills the process. It does the same for a value that it does not know.
    KillProcess,
    /// The kernel kills the thread.
    KillThread,
    /// The thread gets SIGSYS.
    Trap,
    /// The call fails with this error number (at most 4095), or returns 0.
    Errno(u16),
    /// The kernel asks a supervisor. Without a supervisor the call fails with ENOSYS.
    Notify,
    /// The kernel asks a tracer. Without a tracer the call fails with ENOSYS.
    Trace,
    /// The kernel makes the call, and logs it.
    Log,
    /// The kernel makes the call.
    Allow,
}

impl Action {
    /// Returns the action for the value that a program returns.
    ///
    /// ```
    /// use privileges::bpf::Action;
    ///
    /// let action = Action::from_return_value(0x0005_0001);
    /// assert_eq!(action, Action::Errno(1));
    /// assert!(!action.allows() && !action.kills());
    /// ```
    pub fn from_return_value(value: u32) -> Self {
        match value & 0xffff_0000 {
            0x0000_0000 => Self::KillThread,
            0x0003_0000 => Self::Trap,
            0x0005_0000 => Self::Errno((value & 0xffff).min(4095) as u16),
            0x7fc0_0000 => Self::Notify,
            0x7ff0_0000 => Self::Trace,
            0x7ffc_0000 => Self::Log,
            0x7fff_0000 => Self::Allow,
            _ => Self::KillProcess,
        }
    }

    /// Returns whether the kernel makes the call.
    pub fn allows(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }

    /// Returns whether the thread or the process dies. With [`Trap`](Self::Trap) it dies unless it handles SIGSYS.
    pub fn kills(self) -> bool {
        matches!(self, Self::KillProcess | Self::KillThread | Self::Trap)
    }
}

/// The reason why the kernel refuses a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProgram {
    /// The program does not have 1 to 4096 instructions.
    #[error("it has {0} instructions, and the kernel takes 1 to 4096")]
    Length(usize),
    /// seccomp(2) has no such instruction, or the instruction has an operand that is always invalid.
    #[error("instruction {0} is none that seccomp(2) takes")]
    Instruction(usize),
    /// The instruction jumps beyond the end.
    #[error("instruction {0} jumps beyond the end")]
    Jump(usize),
    /// The instruction reads a word of scratch memory that some path to it has not written.
    #[error("instruction {0} reads scratch memory that was not written")]
    Unwritten(usize),
    /// The last instruction is not a return.
    #[error("the last instruction is not a return")]
    End,
}

/// A program that the kernel accepts.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a>(&'a [Instruction]);

#[derive(Clone, Copy)]
enum Operand {
    Constant,
    X,
}

#[derive(Clone, Copy)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Or,
    And,
    Lsh,
    Rsh,
    Xor,
}

#[derive(Clone, Copy)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// A decoded instruction.
#[derive(Clone, Copy)]
enum Operation {
    LoadData,
    /// The size of the data.
    LoadSize,
    LoadConstant,
    LoadMemory,
    LoadXSize,
    LoadXConstant,
    LoadXMemory,
    Store,
    StoreX,
    Arithmetic(Arithmetic, Operand),
    Negate,
    Jump,
    JumpIf(Comparison, Operand),
    ReturnConstant,
    ReturnA,
    CopyToX,
    CopyToA,
}

/// Decodes the codes that `seccomp_check_filter` lets pass.
fn decode(code: u16) -> Option<Operation> {
    use Operation as O;
    let operand = if code & 0x08 == 0 { Operand::Constant } else { Operand::X };
    let arithmetic = |which| Some(O::Arithmetic(which, operand));
    let comparison = |which| Some(O::JumpIf(which, operand));
    match code {
        0x20 => Some(O::LoadData),
        0x80 => Some(O::LoadSize),
        0x00 => Some(O::LoadConstant),
        0x60 => Some(O::LoadMemory),
        0x81 => Some(O::LoadXSize),
        0x01 => Some(O::LoadXConstant),
        0x61 => Some(O::LoadXMemory),
        0x02 => Some(O::Store),
        0x03 => Some(O::StoreX),
        0x04 | 0x0c => arithmetic(Arithmetic::Add),
        0x14 | 0x1c => arithmetic(Arithmetic::Sub),
        0x24 | 0x2c => arithmetic(Arithmetic::Mul),
        0x34 | 0x3c => arithmetic(Arithmetic::Div),
        0x44 | 0x4c => arithmetic(Arithmetic::Or),
        0x54 | 0x5c => arithmetic(Arithmetic::And),
        0x64 | 0x6c => arithmetic(Arithmetic::Lsh),
        0x74 | 0x7c => arithmetic(Arithmetic::Rsh),
        0xa4 | 0xac => arithmetic(Arithmetic::Xor),
        0x84 => Some(O::Negate),
        0x05 => Some(O::Jump),
        0x15 | 0x1d => comparison(Comparison::Equal),
        0x25 | 0x2d => comparison(Comparison::Greater),
        0x35 | 0x3d => comparison(Comparison::GreaterOrEqual),
        0x45 | 0x4d => comparison(Comparison::AnyBit),
        0x06 => Some(O::ReturnConstant),
        0x16 => Some(O::ReturnA),
        0x07 => Some(O::CopyToX),
        0x87 => Some(O::CopyToA),
        _ => None,
    }
}

impl<'a> Program<'a> {
    /// Checks a program as the kernel does.
    ///
    /// # Errors
    /// The kernel refuses the program with EINVAL.
    pub fn new(program: &'a [Instruction]) -> Result<Self, InvalidProgram> {
        let length = program.len();
        if !(1..=MOST).contains(&length) {
            return Err(InvalidProgram::Length(length));
        }
        // For each instruction the words that were written on every path to it.
        let mut written = vec![u16::MAX; length];
        let mut here = 0u16;
        for (at, step) in program.iter().enumerate() {
            let operation = decode(step.code).ok_or(InvalidProgram::Instruction(at))?;
            here &= written.get(at).copied().unwrap_or_default();
            let bit = 1u16.checked_shl(step.k).filter(|_| step.k < MEMORY);
            let mut arrive = |skipped: u32, here: u16| {
                let target = at.checked_add(1).and_then(|next| next.checked_add(skipped as usize));
                let place = target.and_then(|target| written.get_mut(target));
                place.map(|place| *place &= here).ok_or(InvalidProgram::Jump(at))
            };
            let refused = match operation {
                Operation::LoadData => step.k >= SIZE || step.k % 4 != 0,
                Operation::Store | Operation::StoreX => {
                    here |= bit.unwrap_or_default();
                    bit.is_none()
                }
                Operation::LoadMemory | Operation::LoadXMemory => {
                    if bit.is_some_and(|bit| here & bit == 0) {
                        return Err(InvalidProgram::Unwritten(at));
                    }
                    bit.is_none()
                }
                Operation::Arithmetic(Arithmetic::Div, Operand::Constant) => step.k == 0,
                Operation::Arithmetic(Arithmetic::Lsh | Arithmetic::Rsh, Operand::Constant) => {
                    step.k >= 32
                }
                Operation::Jump => {
                    arrive(step.k, here)?;
                    here = u16::MAX;
                    false
                }
                Operation::JumpIf(..) => {
                    arrive(step.jt.into(), here)?;
                    arrive(step.jf.into(), here)?;
                    here = u16::MAX;
                    false
                }
                _ => false,
            };
            if refused {
                return Err(InvalidProgram::Instruction(at));
            }
        }
        let last = program.last().and_then(|step| decode(step.code));
        match last {
            Some(Operation::ReturnConstant | Operation::ReturnA) => Ok(Self(program)),
            _ => Err(InvalidProgram::End),
        }
    }

    /// Runs the program over a call.
    ///
    /// It ends, because every jump leads forward.
    pub fn evaluate(&self, call: &SeccompData) -> Action {
        Action::from_return_value(self.value(call))
    }

    /// Runs the program, and returns the program's value.
    fn value(&self, call: &SeccompData) -> u32 {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY as usize]);
        let mut at = 0usize;
        // `new` has checked that each instruction is known and that each jump ends inside the program.
        while let Some((step, operation)) =
            self.0.get(at).and_then(|step| Some((step, decode(step.code)?)))
        {
            let k = step.k;
            let value = |operand| match operand {
                Operand::Constant => k,
                Operand::X => x,
            };
            let mut skipped = 0u32;
            match operation {
                Operation::LoadData => a = call.word(k),
                Operation::LoadSize => a = SIZE,
                Operation::LoadConstant => a = k,
                Operation::LoadMemory => a = memory.get(k as usize).copied().unwrap_or_default(),
                Operation::LoadXSize => x = SIZE,
                Operation::LoadXConstant => x = k,
                Operation::LoadXMemory => x = memory.get(k as usize).copied().unwrap_or_default(),
                Operation::Store | Operation::StoreX => {
                    if let Some(place) = memory.get_mut(k as usize) {
                        *place = if matches!(operation, Operation::Store) { a } else { x };
                    }
                }
                Operation::Arithmetic(which, operand) => {
                    let Some(result) = compute(which, a, value(operand)) else { return 0 };
                    a = result;
                }
                Operation::Negate => a = a.wrapping_neg(),
                Operation::Jump => skipped = k,
                Operation::JumpIf(which, operand) => {
                    let operand = value(operand);
                    let holds = match which {
                        Comparison::Equal => a == operand,
                        Comparison::Greater => a > operand,
                        Comparison::GreaterOrEqual => a >= operand,
                        Comparison::AnyBit => a & operand != 0,
                    };
                    skipped = if holds { step.jt } else { step.jf }.into();
                }
                Operation::ReturnConstant => return k,
                Operation::ReturnA => return a,
                Operation::CopyToX => x = a,
                Operation::CopyToA => a = x,
            }
            at = at.saturating_add(1).saturating_add(skipped as usize);
        }
        0
    }
}

/// Computes an operation. Returns `None` for a division by 0, which ends the program with the value 0.
fn compute(which: Arithmetic, a: u32, operand: u32) -> Option<u32> {
    Some(match which {
        Arithmetic::Add => a.wrapping_add(operand),
        Arithmetic::Sub => a.wrapping_sub(operand),
        Arithmetic::Mul => a.wrapping_mul(operand),
        Arithmetic::Div => a.checked_div(operand)?,
        Arithmetic::Or => a | operand,
        Arithmetic::And => a & operand,
        // The CPU's 32-bit shifts use the lower five bits of the count.
        Arithmetic::Lsh => a.wrapping_shl(operand),
        Arithmetic::Rsh => a.wrapping_shr(operand),
        Arithmetic::Xor => a ^ operand,
    })
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillProcess => f.write_str("kill the process"),
            Self::KillThread => f.write_str("kill the thread"),
            Self::Trap => f.write_str("send SIGSYS"),
            Self::Errno(number) => write!(f, "fail with error {number}"),
            Self::Notify => f.write_str("ask a supervisor"),
            Self::Trace => f.write_str("ask a tracer"),
            Self::Log => f.write_str("allow and log"),
            Self::Allow => f.write_str("allow"),
        }
    }
}
